"""The environments that the lab knows, by name; one file each. Importing this package is light."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sdar_verl.errors import ConfigError

if TYPE_CHECKING:
    from sdar_verl.lab.envs.base import LabEnv

_MODULES = {name: f"sdar_verl.lab.envs.{name}" for name in ("alfworld", "search_qa", "webshop")}


def names() -> list[str]:
    return sorted(_MODULES)


def get(name: str) -> LabEnv:
    """The lab of the environment called `name`; raises `ConfigError` that lists the known ones."""
    if name not in _MODULES:
        raise ConfigError(f"the lab has no environment {name!r}; known: {', '.join(names())}")
    return import_module(_MODULES[name]).LAB
