"""`sdar quickstart`: games, a start model, the same training with and without a teacher, a report."""
