"""All knobs of the lab in one place: games, prompts, labels, model, fit. The defaults made the shipped weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sdar_envs.alfworld import FAMILY
from sdar_envs.alfworld.games import TASK_TYPES
from sdar_envs.alfworld.knobs import Knobs
from sdar_envs.base import EpisodeView

from sdar_verl.lab.prompts import messages
from sdar_verl.skills import open_store
from sdar_verl.teacher.context import HEADING

_VERSION = 1  # raise it when the same configuration makes another model


@dataclass(frozen=True)
class PlayConfig:
    """The games that the fitted model plays, here and in the quickstart: somewhat easier than those it learned from.

    With them it wins most games with the right skill and less than half without: room to learn, and something to
    learn from.

    Attributes:
        task_types: without the type that needs two objects, which a model of this size hardly ever wins.
        places, objects: room size, see `Knobs`.
        max_steps: environment steps an episode may take.
        temperature: of sampling; of the rollout and the teacher in training.
    """

    task_types: tuple[str, ...] = tuple(name for name in TASK_TYPES if name != "pick_two_obj_and_place")
    places: tuple[int, int] = (3, 3)
    objects: tuple[int, int] = (2, 2)
    max_steps: int = 20
    temperature: float = 0.8

    @property
    def knobs(self) -> Knobs:
        """The generator's knobs."""
        return Knobs(
            task_types=self.task_types,
            receptacles=self.places,
            objects=self.objects,
            copies=1,
            closed_places=False,
        )


PLAY = PlayConfig()


@dataclass(frozen=True)
class LabConfig:
    """What the fitted model depends on.

    Attributes:
        seed: of games, labels, initial weights and order.
        train_games: generated games that the lessons come from; task types take turns.
        places, objects, copies: room size, see `Knobs`.
        max_steps: environment steps of a game that lessons come from.
        history_length: past steps that a prompt shows; the room's list of places is always shown.
        skills: name of the shipped skill set.
        noises: shares of random actions of the players that collect states; one walk through each game for each.
        play_right, play_wrong, play_none: lessons per state by condition in the fit's first stage.
        right, wrong, none: the same in its second stage.
        wrong_plan, random_action: shares of other types' plans and of random actions among the second stage's labels
            without a skill.
        vocab: largest number of tokens.
        hidden, layers, heads, kv_heads, ffn: the model's shape.
        batch, prompt_loss, matrix_lr, other_lr, warmup, clip: the fit; see `train` and `LabOptimizer`.
    """

    seed: int = 0
    train_games: int = 2200
    places: tuple[int, int] = (3, 3)
    objects: tuple[int, int] = (2, 4)
    copies: int = 1
    max_steps: int = 14
    history_length: int = 0
    skills: str = "alfworld_tiny"
    noises: tuple[float, ...] = (0.0, 0.25, 0.5)
    play_right: float = 0.8
    play_wrong: float = 0.3
    play_none: float = 0.7
    right: float = 0.08
    wrong: float = 0.05
    none: float = 0.15
    wrong_plan: float = 0.5
    random_action: float = 0.2
    vocab: int = 900
    hidden: int = 128
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 256
    max_positions: int = 512
    batch: int = 16
    prompt_loss: float = 0.3
    matrix_lr: float = 0.02
    other_lr: float = 0.006
    warmup: int = 30
    clip: float = 1.0

    @property
    def knobs(self) -> Knobs:
        """The generator's knobs; closed places only where a task needs them."""
        return Knobs(receptacles=self.places, objects=self.objects, copies=self.copies, closed_places=False)

    @property
    def env(self) -> dict[str, Any]:
        """The keys under ``env.alfworld`` with which this model plays, `data_root` left out."""
        return {
            "max_steps": self.max_steps,
            "history_length": self.history_length,
            "room_list": True,
            "thinking": False,
        }

    def quick(self) -> LabConfig:
        """A fit of seconds by the same path, for checks; its model cannot play."""
        return replace(self, train_games=12, noises=(0.0, 0.5), hidden=64, heads=2, kv_heads=1, layers=2, ffn=128)


def config_of(recorded: Mapping[str, Any]) -> LabConfig:
    """The configuration that a model folder's record holds."""
    return LabConfig(**{key: tuple(value) if isinstance(value, list) else value for key, value in recorded.items()})


def fingerprint(config: LabConfig) -> str:
    """SHA-256 (hex) over everything the fitted model depends on but the libraries and the processor.

    That is the configuration, the skills, and the prompts as they are worded: a changed template or skill makes the
    shipped weights stale, and this shows it.
    """
    inputs = {
        "version": _VERSION,
        "config": asdict(config),
        "skills": open_store(config.skills).content_hash,
        "heading": HEADING,
        "prompts": _sample_prompts(config),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _sample_prompts(config: LabConfig) -> list[str]:
    intro = "Looking quickly around you, you see a bed 1, and a desk 1.\n\nYour task is to: x."
    first = EpisodeView("x.", intro, ["go to bed 1", "help", "look"])
    later = EpisodeView("x.", "You arrive at bed 1.", ["go to desk 1", "help", "look"], [(intro, "go to bed 1")])
    prompt_format = FAMILY.make_format(config.env)
    return [messages(prompt_format, view)[0]["content"] for view in (first, later)]
