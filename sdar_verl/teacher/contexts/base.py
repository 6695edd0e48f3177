"""What every privileged context is: what is known about a row goes in, units of text come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sdar_envs.base import TaskRef

from sdar_verl.skills.skill import Skill


@dataclass(frozen=True)
class AttemptTurn:
    """One turn of an episode that has ended: what was observed, the whole answer, the action read out of it."""

    observation: str
    response: str
    action: str


@dataclass(frozen=True)
class Attempt:
    """An episode that has ended, as the teachers of its group may be shown it.

    Attributes:
        session: its number within the group.
        won: the environment's verdict.
        reward: summed over the episode, invalid-action penalties taken off.
        last_observation: the environment's answer to the last action.
        failed: why it could not be played to its end; empty if it was.
    """

    session: int
    won: bool
    reward: float
    turns: tuple[AttemptTurn, ...]
    last_observation: str
    failed: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a channel that carries nothing else."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Attempt:
        return cls(**{**values, "turns": tuple(AttemptTurn(**turn) for turn in values["turns"])})


@dataclass(frozen=True)
class Situation:
    """What is known when the teacher of a row is given its context.

    Attributes:
        env: name of the environment.
        task: the row's task.
        seed: for retrievers that draw.
        own: the row's own episode; None while it is being played.
        siblings: the other episodes of its group by session; empty while they are being played.
        step: the training step that it is played in; None where no retriever that learns may ask.
        text: the task in the environment's words; None where no retriever that reads it may ask.
    """

    env: str
    task: TaskRef
    seed: int
    own: Attempt | None = None
    siblings: tuple[Attempt, ...] = ()
    step: int | None = None
    text: str | None = None


class Context(ABC):
    """One source of privileged text.

    Class attributes:
        needs_group: its text exists only when all episodes of the group have ended.
        is_solution: its text solves the task.
    """

    name: str
    needs_group = False
    is_solution = False

    @abstractmethod
    def units(self, situation: Situation) -> list[Skill]:
        """Texts to be shown, in order; the last one is left out first where they do not fit. Empty: nothing to show."""


@dataclass(frozen=True)
class Success:
    """Which attempts count as successful.

    Attributes:
        reward_threshold: the least reward; None asks the environment's own verdict.
    """

    reward_threshold: float | None

    def __call__(self, attempt: Attempt) -> bool:
        if self.reward_threshold is None or attempt.failed:
            return attempt.won
        return attempt.reward >= self.reward_threshold


@dataclass(frozen=True)
class Transcript:
    """Turns an attempt into units, one a turn; the first holds the heading as well.

    Attributes:
        usable: whether a text may stand in a prompt; a model may write what its tokenizer takes for a turn's end.
    """

    usable: Callable[[str], bool]

    def units(self, name: str, situation: Situation, heading: str, lines: list[str]) -> list[Skill]:
        """Empty if there is no turn, or one that cannot be shown."""
        if not lines or not all(self.usable(text) for text in lines):
            return []
        texts = [f"{heading}\n\n{lines[0]}", *lines[1:]]
        return [unit(name, text, situation, number) for number, text in enumerate(texts)]


_PREFIX = "context/"


def unit(part: str, text: str, situation: Situation, number: int = 0) -> Skill:
    """A text of the context called `part`, in the form in which prompts take texts."""
    return Skill(f"{_PREFIX}{part}/{number}", text, situation.env, situation.task.task_type, 1, f"{part} of this run")


def part_of(unit_id: str) -> str:
    """Name of the context that a unit came from; everything that a store has is of ``skills``."""
    return unit_id.removeprefix(_PREFIX).split("/")[0] if unit_id.startswith(_PREFIX) else "skills"
