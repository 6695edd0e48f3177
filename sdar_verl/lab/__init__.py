"""The tiny model that plays: how it is made (`fit`), how well it plays with and without skills (`evaluate`)."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"  # the fitted model that ships with the package
