"""Text environments for agents: no torch, no verl."""
