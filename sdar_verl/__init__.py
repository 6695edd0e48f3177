"""Self-distilled agentic RL (SDAR, arXiv 2605.15155) as a plugin for stock verl."""

__version__ = "0.1.0"
