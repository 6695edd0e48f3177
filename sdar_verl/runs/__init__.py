"""Training runs as child processes: command lines, the lab's games, what a folder of runs remembers. No torch here."""
