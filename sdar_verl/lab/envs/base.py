"""What the lab needs to know about an environment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdar_envs import registry
from sdar_envs.base import EpisodeView, PromptFormat, TaskRef, TextEnv
from sdar_envs.registry import EnvFamily

from sdar_verl.lab.config import LabConfig, PlayConfig
from sdar_verl.lab.prompts import TAGS


@dataclass(frozen=True)
class World:
    """Generated tasks that are played with the same files.

    Attributes:
        tasks: in order.
        settings: keys under ``env.<name>`` that name the files.
    """

    tasks: Sequence[TaskRef]
    settings: Mapping[str, Any] = field(default_factory=dict)


class Player(ABC):
    """The scripted player of one episode: what to do by the plan of each task type.

    It decides by what a prompt shows, so that a model can learn why.
    """

    @abstractmethod
    def plans(self, view: EpisodeView) -> dict[str, str]:
        """The action by task type whose plan is followed; the right one is that of the task's own type."""

    @abstractmethod
    def can(self, view: EpisodeView) -> tuple[str, ...]:
        """Actions from which a random one is drawn."""


class LabEnv(ABC):
    """One environment in the lab.

    Attributes:
        name: as the registry of environments calls it.
        version: raise it when the same configuration makes another model.
        config: makes the shipped weights.
        play: the games that the fitted model plays.
        tags: answer tags that are whole tokens.
        answer_tokens: longest answer of a policy, the end token included.
        packages: whose versions are recorded beside those of the fit's own libraries.
        valid_split: the split of training runs' games that is evaluated on.
    """

    name: str
    version: int = 1
    config: LabConfig
    play: PlayConfig
    tags: tuple[str, ...] = TAGS
    answer_tokens: int = 24
    packages: tuple[str, ...] = ()
    valid_split: str = "valid_unseen"

    @property
    def family(self) -> EnvFamily:
        return registry.get(self.name)

    @abstractmethod
    def worlds(self, root: Path, split: str, number: int, seed: int, knobs: Any) -> list[World]:
        """Generate `number` tasks below `root`; those of splits with "unseen" in the name share nothing with others."""

    @abstractmethod
    def make_games(self, folder: Path, splits: Mapping[str, int], seed: int) -> None:
        """Generate so many tasks of each split below `folder` for training runs; kept where they are there already.

        They are of the difficulty that `play` has. What splits have in common, each environment says.
        """

    def game_settings(self, folder: Path) -> dict[str, Any]:
        """The keys under ``env.<name>`` that name what `make_games` generated in `folder`."""
        return {"data_root": folder}

    @abstractmethod
    def player(self, view: EpisodeView) -> Player:
        """The scripted player of the episode that begins with `view`."""

    @abstractmethod
    def sample_views(self) -> Sequence[EpisodeView]:
        """Views that show the wording of every kind of prompt."""

    def answer(self, action: str) -> str:
        """The answer that plays `action`, thinking off, as the parser expects it."""
        return f"<action>{action}</action>"

    def understands(self, action: str, admissible: Sequence[str]) -> bool:
        """Whether the environment takes `action` where it names these as admissible."""
        return action in admissible

    def make_format(self, config: LabConfig) -> PromptFormat:
        return self.family.make_format(config.env)

    def make_env(self, config: LabConfig, world: World, max_steps: int | None = None) -> TextEnv:
        """An environment for the tasks of `world`; `max_steps` instead of the configuration's own if given."""
        changed = {} if max_steps is None else {"max_steps": max_steps}
        return self.family.make_env({**config.env, **world.settings, **changed})
