"""Turns run folders into a page that can be read anywhere: plots, tables and one episode, in a single HTML file."""
