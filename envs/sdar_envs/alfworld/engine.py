"""The ALFWorld/TextWorld engine, called directly: one game at a time, text in and text out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from sdar_envs.base import EnvError

ENGINES = ("fast", "stock")


@dataclass(frozen=True)
class EngineState:
    """What the engine shows after `reset` and after every `step`.

    Attributes:
        feedback: the engine's text, unchanged.
        admissible: all commands that would be understood now, sorted; ``help`` is among them.
        won: whether the goal holds.
    """

    feedback: str
    admissible: tuple[str, ...]
    won: bool


class Engine(ABC):
    """One playable engine; `load` a game, `reset` it as often as you like."""

    @abstractmethod
    def load(self, path: str) -> None:
        """Load the game file at `path`."""

    @abstractmethod
    def reset(self) -> EngineState:
        """Start the loaded game from its beginning."""

    @abstractmethod
    def step(self, command: str) -> EngineState:
        """Send one command; one that is not admissible yields ``Nothing happens.``"""


def make_engine(kind: str) -> Engine:
    """``fast`` or ``stock``; both give the same transcripts. Imports the heavy packages only here."""
    if kind not in ENGINES:
        raise EnvError(f"unknown engine {kind!r}; known: {', '.join(ENGINES)}")
    if kind == "stock":
        from sdar_envs.alfworld.stock import StockEngine

        return StockEngine()
    from sdar_envs.alfworld.fast import FastEngine

    return FastEngine()
