"""One start of the run: passed its signals, waited for, and ended where it hangs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

LOOK = 30.0  # seconds between two looks
GRACE = 600.0  # seconds that a hung run has to save something before it is killed


class Child:
    """A process with a session of its own, so that all it left in it can be killed.

    Attributes:
        moved: what is looked at changed since the start.
        hung: it was ended because nothing did for too long.
    """

    def __init__(self, command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> None:
        self.moved = self.hung = False
        self._process = subprocess.Popen(command, cwd=folder, env=variables, start_new_session=True)

    def terminate(self) -> None:
        """Tell it to end, if it has not."""
        if self._process.poll() is None:
            self._process.terminate()

    def wait(self, look: Callable[[], object], limit: float) -> int:
        """Its status.

        Args:
            look: what must change now and then.
            limit: seconds without a change after which it is ended; 0 waits for ever.
        """
        seen, since = look(), time.monotonic()
        while True:
            try:
                return self._process.wait(LOOK)
            except subprocess.TimeoutExpired:
                now = look()
            if now != seen:
                seen, since, self.moved = now, time.monotonic(), True
            elif limit and time.monotonic() - since > limit:
                self.hung = True
                return self._end()

    def _end(self) -> int:
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(GRACE)
        os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()
