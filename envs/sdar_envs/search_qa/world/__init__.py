"""A small made-up world: nothing in it can be known without searching."""

from sdar_envs.search_qa.world.knobs import WorldKnobs

__all__ = ["WorldKnobs"]
