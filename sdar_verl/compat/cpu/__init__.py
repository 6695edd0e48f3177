"""Running the real stack on a CPU. Nothing here is imported unless ``VERL_PLATFORM=cpu``."""
