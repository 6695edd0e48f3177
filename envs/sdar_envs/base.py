"""The one contract every environment follows: gymnasium's `reset`/`step`, with text in and text out.

This package imports neither torch nor verl, so an environment host stays small.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict


class EnvError(RuntimeError):
    """An environment could not do what was asked; the message says what to do about it."""


class EnvUnreachable(EnvError):
    """Something that environments need, a service or a search engine, does not answer now; later it may."""


class NoPlace(RuntimeError):
    """No episode can begin anywhere any more. No failure of one episode, so no `EnvError`: who trains must stop."""


@dataclass(frozen=True)
class TaskRef:
    """One task that an environment can play.

    Attributes:
        id: stable name, unique within a split (ALFWorld: ``<task folder>/<trial folder>``).
        task_type: the environment's own category; skills are retrieved by it.
        split: the split the task belongs to (``train``, ``valid_seen``, ...).
        path: where the task's data lies; empty for tasks that need no file.
    """

    id: str
    task_type: str
    split: str
    path: str = ""


class StepInfo(TypedDict):
    """What an environment says beside the observation, after `reset` and after every `step`."""

    task_id: str
    task_type: str
    task_description: str
    admissible_actions: list[str]
    won: bool
    step: int  # environment steps taken so far in this episode


class TextEnv(ABC):
    """One playable environment; reused for many episodes."""

    @abstractmethod
    def reset(self, *, task: TaskRef, seed: int | None = None) -> tuple[str, StepInfo]:
        """Start `task`; returns ``(observation, info)``."""

    @abstractmethod
    def step(self, action: str) -> tuple[str, float, bool, bool, StepInfo]:
        """Play one action; returns ``(observation, reward, terminated, truncated, info)``."""

    def close(self) -> None:  # noqa: B027 - most environments hold nothing
        """Free what the environment holds; safe to call twice."""


@dataclass(frozen=True)
class ParsedAction:
    """The action read out of a model's text.

    Attributes:
        action: what is sent to the environment (also when `valid` is False).
        valid: False earns the invalid-action penalty.
        reason: why it is not valid, empty when it is.
    """

    action: str
    valid: bool
    reason: str = ""


@dataclass
class EpisodeView:
    """All that a prompt template may look at; the agent loop keeps it up to date."""

    task_description: str
    observation: str
    admissible_actions: Sequence[str]
    history: list[tuple[str, str]] = field(default_factory=list)  # (observation, action), oldest first


class PromptFormat(ABC):
    """Prompt template and action parser in one object, so that they cannot disagree."""

    @abstractmethod
    def render(self, view: EpisodeView) -> str:
        """The user message for the current step."""

    @abstractmethod
    def parse(self, text: str, admissible_actions: Sequence[str]) -> ParsedAction:
        """Read the action out of the generated `text`; never raises on any input."""
