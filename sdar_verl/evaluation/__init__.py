"""Fixed panels, episode records and success rates with intervals. Imports neither torch nor verl."""
