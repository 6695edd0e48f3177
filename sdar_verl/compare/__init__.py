"""`sdar compare`: arms (named sets of overrides) times seeds, run one after the other, and what they show."""
