"""Asking a search engine elsewhere again where a failure may pass, with growing pauses and a deadline."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sdar_envs.search_qa.retrievers.base import RetrieverAway

LONGEST_PAUSE = 10.0  # seconds
_FIRST_PAUSE = 0.2
_PROBE_RETRIES = 2  # of the first question: a wrong address shows soon, and a busy server is none
Answer = TypeVar("Answer")


class Failed(Exception):
    """One attempt failed in a way that another one may not; `pause` is what the server asked for, in seconds."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


class Patience:
    """How often, and how long, one question is asked.

    Args:
        retries: attempts after the first.
        deadline: seconds that all attempts may take together.
    """

    def __init__(self, retries: int, deadline: float) -> None:
        self.retries, self.deadline = retries, deadline

    @contextmanager
    def short(self) -> Iterator[None]:
        """Few attempts meanwhile: for the question that shows whether anybody is there."""
        retries, self.retries = self.retries, min(self.retries, _PROBE_RETRIES)
        try:
            yield
        finally:
            self.retries = retries

    def ask(self, attempt: Callable[[], Answer], end: float, where: Callable[[], str]) -> Answer:
        """What `attempt` returns, as soon as it does not raise `Failed`.

        Args:
            end: monotonic seconds after which no further attempt begins.
            where: who was asked last, for the error.

        Raises:
            RetrieverAway: every attempt failed, or there is no time for more.
        """
        for number in range(1, self.retries + 2):
            try:
                return attempt()
            except Failed as error:
                reason, asked = str(error), error.pause
            pause = max(asked, min(LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (number - 1)) * random.uniform(0.5, 1.0))
            if number <= self.retries:
                if time.monotonic() + pause >= end:
                    reason += f"; the deadline of {self.deadline:g} s leaves no time for more"
                    break
                time.sleep(pause)
        raise RetrieverAway(f"no answer from {where()} after {number} attempts: {reason}")
