"""Hydra configuration: `sdar.yaml` and its groups. A package, so that an installed `sdar train` finds it."""
