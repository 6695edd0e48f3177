"""Environments by name. An environment is added with one `register` call in its own package."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from sdar_envs.base import EnvError, PromptFormat, TaskRef, TextEnv


class EnvFamily(ABC):
    """Everything a trainer needs of one environment; built by name through `get`.

    `config` is the plain mapping under ``env.<name>`` of the run's configuration.
    """

    name: str
    task_types: tuple[str, ...]

    # Keys of the configuration in which a trainer and an environment service may differ: paths on their own host, and
    # what only prompts and the choice of tasks read. All others decide how an episode goes, and must agree.
    own_keys: tuple[str, ...] = ()

    # Every key of the configuration with its default; None takes any keys.
    defaults: Mapping[str, Any] | None = None

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """`config` with every default filled in; raises `EnvError` for unknown keys where the family knows its keys."""
        if self.defaults is None:
            return dict(config)
        unknown = sorted(set(config) - set(self.defaults))
        if unknown:
            known = ", ".join(sorted(self.defaults))
            raise EnvError(f"unknown keys under env.{self.name}: {', '.join(unknown)}; known: {known}")
        return {**self.defaults, **config}

    @abstractmethod
    def tasks(self, config: Mapping[str, Any], split: str) -> list[TaskRef]:
        """All tasks of a split in a fixed order; raises `EnvError` if there are none or some are broken."""

    @abstractmethod
    def make_env(self, config: Mapping[str, Any]) -> TextEnv:
        """A playable environment; called inside an environment worker process."""

    @abstractmethod
    def make_format(self, config: Mapping[str, Any]) -> PromptFormat:
        """The prompt template and action parser; cheap, holds no engine."""

    def reference(self, config: Mapping[str, Any], task: TaskRef) -> list[str]:
        """Actions that solve `task`, in order; raises `EnvError` where the environment knows none."""
        raise EnvError(f"{self.name} has no reference solutions; take `reference` out of sdar.context.parts")


_MODULES = {
    "alfworld": "sdar_envs.alfworld",
    "search_qa": "sdar_envs.search_qa",
    "webshop": "sdar_envs.webshop",
}


def register(name: str, module: str) -> None:
    """Make the `FAMILY` of an importable module known as `name`; raises `EnvError` if the name means another one."""
    if _MODULES.setdefault(name, module) != module:
        raise EnvError(f"environment {name!r} is already registered as {_MODULES[name]}, it cannot become {module}")


def names() -> list[str]:
    return sorted(_MODULES)


def module_of(name: str) -> str:
    """The module whose `FAMILY` is called `name`; worker processes import it by this path."""
    if name not in _MODULES:
        raise EnvError(f"unknown environment {name!r}; known: {', '.join(names())}")
    return _MODULES[name]


def get(name: str) -> EnvFamily:
    """The environment family called `name`; importing it stays lazy because engines are heavy."""
    return import_module(module_of(name)).FAMILY
