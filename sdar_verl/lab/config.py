"""The knobs that the lab has for every environment; `sdar_verl.lab.envs` adds each environment's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self


@dataclass(frozen=True)
class PlayConfig:
    """The games that a fitted model plays, in the lab's evaluation and in the quickstart.

    They are somewhat easier than those it learned from: it wins most of them with the right skill and less than half
    without, so there is room to learn, and something to learn from.

    Attributes:
        task_types: those played.
        max_steps: environment steps an episode may take.
        temperature: of sampling; of the rollout and the teacher in training.
    """

    task_types: tuple[str, ...] = ()
    max_steps: int = 20
    temperature: float = 0.8

    @property
    def knobs(self) -> Any:
        """The generator's knobs."""
        raise NotImplementedError


@dataclass(frozen=True)
class Stage:
    """One pass of the fit.

    Attributes:
        right, wrong, none: lessons per state by condition; 1.5 gives one, and a second to a random half of the states.
        wrong_plan, random_action: shares of other types' plans and of random actions among the labels without a skill.
    """

    right: float
    wrong: float
    none: float
    wrong_plan: float = 0.0
    random_action: float = 0.0

    @property
    def shares(self) -> dict[str, float]:
        """Lessons per state by condition."""
        return {"right": self.right, "wrong": self.wrong, "none": self.none}


@dataclass(frozen=True)
class LabConfig:
    """What the fitted model depends on; an environment's own subclass adds the knobs of its generator.

    Attributes:
        env_name: the environment.
        seed: of games, labels, initial weights and order.
        train_games: generated games that the lessons come from; task types take turns.
        max_steps: environment steps of a game that lessons come from.
        history_length: past steps that a prompt shows.
        skills: name of the shipped skill set.
        noises: shares of random actions of the players that collect states; one walk through each game for each.
        play_right, play_wrong, play_none: lessons per state by condition in the fit's first stage.
        right, wrong, none: the same in its second stage.
        wrong_plan, random_action: shares of other types' plans and of random actions among the second stage's labels
            without a skill.
        vocab: largest number of tokens.
        hidden, layers, heads, kv_heads, ffn: the model's shape.
        max_positions: longest prompt with its answer, in tokens.
        batch, prompt_loss, matrix_lr, other_lr, warmup, clip: the fit; see `train` and `LabOptimizer`.
    """

    env_name: ClassVar[str]

    seed: int = 0
    train_games: int = 2200
    max_steps: int = 14
    history_length: int = 0
    skills: str = ""
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
    def stages(self) -> tuple[Stage, ...]:
        """First how to play and to follow a skill, with clean labels alone; then to be less sure without one.

        Clean labels first is much faster: the second stage only has to spread what the first has learned. Further ones
        have a learning rate schedule of their own each.
        """
        return (
            Stage(self.play_right, self.play_wrong, self.play_none),
            Stage(self.right, self.wrong, self.none, self.wrong_plan, self.random_action),
        )

    @property
    def knobs(self) -> Any:
        """The generator's knobs."""
        raise NotImplementedError

    @property
    def env(self) -> dict[str, Any]:
        """The keys under ``env.<name>`` with which this model plays, without those that name files."""
        raise NotImplementedError

    def quick(self) -> Self:
        """A fit of seconds by the same path, for checks; its model cannot play."""
        return replace(self, train_games=12, noises=(0.0, 0.5), hidden=64, heads=2, kv_heads=1, layers=2, ffn=128)
