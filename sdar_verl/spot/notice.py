"""What tells a run's trainer to save or to stop: a file in the run's folder, since the two are different processes."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from sdar_verl.evaluation.files import write_atomic

SAVE, STOP = "save", "stop"
# hidden: no part of the run that goes to another machine. A file for each, so that none can be written over the other:
# a thread and a signal handler leave notices, and a handler must not wait for a lock
FILES = {STOP: ".notice-stop.json", SAVE: ".notice-save.json"}


@dataclass(frozen=True)
class Notice:
    """Attributes:
    action: ``save`` at the end of the step and go on, or ``stop``.
    why: for people.
    at: when it was written, seconds since the epoch.
    """

    action: str
    why: str
    at: float


class NoticeBox:
    """The files in one run's folder."""

    def __init__(self, run_dir: Path | str):
        self._paths = {action: Path(run_dir) / name for action, name in FILES.items()}

    def clear(self) -> None:
        """Forget an earlier start's notices."""
        for path in self._paths.values():
            path.unlink(missing_ok=True)

    def put(self, action: str, why: str) -> bool:
        """Leave a notice; False if one that says as much is there: a stop is not taken back by a wish to save.

        Raises:
            OSError: it cannot be written.
        """
        there = self.look()
        if there is not None and (there.action == STOP or there.action == action):
            return False
        write_atomic(self._paths[action], json.dumps(asdict(Notice(action, why, time.time()))) + "\n")
        return True

    def look(self) -> Notice | None:
        """The notice, if there is one; a stop before a wish to save."""
        for path in self._paths.values():
            try:
                return Notice(**json.loads(path.read_text(encoding="utf-8")))
            except FileNotFoundError:
                continue
        return None
