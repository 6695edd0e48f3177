"""Progress lines that appear every few seconds, also where the output is a file."""

from __future__ import annotations

import time
from collections.abc import Callable


class Progress:
    """Says how far a named job is, at most once in `every` seconds and at its end.

    Args:
        name: what is being done.
        say: receives the lines.
        every: seconds between two lines.
    """

    def __init__(self, name: str, say: Callable[[str], None], every: float = 10.0) -> None:
        self._name, self._say, self._every = name, say, every
        self._start = self._last = time.perf_counter()
        self._sum, self._count = 0.0, 0

    def __call__(self, done: int, total: int, loss: float | None) -> None:
        """`done` of `total` is done; `loss` (if any) is averaged between two lines."""
        now = time.perf_counter()
        if loss is not None:
            self._sum, self._count = self._sum + loss, self._count + 1
        if done < total and now - self._last < self._every:
            return
        left = (now - self._start) * (total - done) / done
        shown = f", loss {self._sum / self._count:.3f}" if self._count else ""
        self._say(f"{self._name}: {done}/{total}{shown}, {now - self._start:.0f} s gone, about {left:.0f} s left")
        self._last, self._sum, self._count = now, 0.0, 0
