"""`sdar plan`: memory, time and cost of a run before anything is rented. Plain arithmetic: neither torch nor verl."""
