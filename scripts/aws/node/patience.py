"""How often a run is started again, and after which pause."""

from __future__ import annotations

import time

CRASHES, WINDOW = 4, 3600.0  # so many crashes within so many seconds are too many
HANGS = 2  # so many starts that hang, with no step between them, are too many
PAUSE = 15.0  # seconds before another start; after a crash twice as long each time


class Patience:
    """Attributes:
    pause: seconds before the next start.
    """

    def __init__(self) -> None:
        self.pause = PAUSE
        self._crashes: list[float] = []
        self._hangs = 0

    def interrupted(self) -> None:
        """The run wants another start, as often as it likes."""
        self.pause = PAUSE

    def crashed(self, status: int, *, hung: bool, moved: bool) -> str:
        """Why there is no further start; empty if there is one.

        Args:
            hung: it did nothing and was ended for it.
            moved: it had trained in this start.
        """
        now = time.monotonic()
        self._crashes = [*(at for at in self._crashes if now - at < WINDOW), now]
        self._hangs = (0 if moved else self._hangs) + hung
        self.pause = PAUSE * 2 ** len(self._crashes)
        if self._hangs >= HANGS:
            return f"it hung {self._hangs} times with no step between (SDAR_HANG_HOURS)"
        if len(self._crashes) >= CRASHES:
            return f"status {status}: {len(self._crashes)} crashes within {WINDOW:g} s"
        return ""
