"""Playing episodes: prompts out, tokens in, actions to the environment, rows for training. No verl here."""
