"""ALFWorld in the lab: small rooms, a player that searches them place by place, one plan for each task type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sdar_envs.alfworld.expert import Expert
from sdar_envs.alfworld.games import TASK_TYPES
from sdar_envs.alfworld.generate import generate_games
from sdar_envs.alfworld.knobs import Knobs
from sdar_envs.base import EpisodeView

from sdar_verl.lab.config import LabConfig, PlayConfig
from sdar_verl.lab.envs.base import LabEnv, Player, World


@dataclass(frozen=True)
class AlfworldPlay(PlayConfig):
    """Attributes:
    task_types: without the type that needs two objects, which a model of this size hardly ever wins.
    places, objects: room size, see `Knobs`.
    """

    task_types: tuple[str, ...] = tuple(name for name in TASK_TYPES if name != "pick_two_obj_and_place")
    places: tuple[int, int] = (3, 3)
    objects: tuple[int, int] = (2, 2)

    @property
    def knobs(self) -> Knobs:
        return Knobs(
            task_types=self.task_types,
            receptacles=self.places,
            objects=self.objects,
            copies=1,
            closed_places=False,
        )


@dataclass(frozen=True)
class AlfworldLab(LabConfig):
    """The defaults made the shipped weights. Prompts show no past steps, but always the room's list of places.

    Attributes:
        places, objects, copies: room size, see `Knobs`.
    """

    env_name: ClassVar[str] = "alfworld"

    skills: str = "alfworld_tiny"
    places: tuple[int, int] = (3, 3)
    objects: tuple[int, int] = (2, 4)
    copies: int = 1

    @property
    def knobs(self) -> Knobs:
        """Closed places only where a task needs them."""
        return Knobs(receptacles=self.places, objects=self.objects, copies=self.copies, closed_places=False)

    @property
    def env(self) -> dict[str, Any]:
        return {
            "max_steps": self.max_steps,
            "history_length": self.history_length,
            "room_list": True,
            "thinking": False,
        }


class _Player(Player):
    def __init__(self, view: EpisodeView) -> None:
        self._experts = {plan: Expert(plan=plan) for plan in TASK_TYPES}
        for expert in self._experts.values():
            expert.reset(view.task_description, view.observation)

    def plans(self, view: EpisodeView) -> dict[str, str]:
        """With the last step alone, what the current observation answers: all that a prompt without history shows."""
        shown = EpisodeView(view.task_description, view.observation, view.admissible_actions, view.history[-1:])
        return {plan: expert.act(shown) for plan, expert in self._experts.items()}

    def can(self, view: EpisodeView) -> tuple[str, ...]:
        return tuple(action for action in view.admissible_actions if action != "help")


class _Alfworld(LabEnv):
    name = "alfworld"
    config = AlfworldLab()
    play = AlfworldPlay()
    packages = ("alfworld", "textworld")

    def worlds(self, root: Path, split: str, number: int, seed: int, knobs: Knobs) -> list[World]:
        """The generator keeps floor plans for splits with "unseen" in the name."""
        return [World(generate_games(root, split, number, seed, knobs))]

    def make_games(self, folder: Path, splits: Mapping[str, int], seed: int) -> None:
        """No floor plan of an unseen split is one of another split."""
        for split, number in splits.items():
            self.worlds(folder, split, number, seed, self.play.knobs)

    def player(self, view: EpisodeView) -> Player:
        return _Player(view)

    def sample_views(self) -> Sequence[EpisodeView]:
        intro = "Looking quickly around you, you see a bed 1, and a desk 1.\n\nYour task is to: x."
        first = EpisodeView("x.", intro, ["go to bed 1", "help", "look"])
        later = EpisodeView("x.", "You arrive at bed 1.", ["go to desk 1", "help", "look"], [(intro, "go to bed 1")])
        return first, later


LAB = _Alfworld()
