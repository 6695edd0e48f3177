"""What tells a run's trainer to save or to stop: a file in the run's folder, since the two are different processes."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from sdar_verl.evaluation.files import write_atomic

FILE = ".notice.json"  # hidden: it is not a part of the run that goes to another machine
SAVE, STOP = "save", "stop"


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
    """The file in one run's folder."""

    def __init__(self, run_dir: Path | str):
        self._path = Path(run_dir) / FILE

    def clear(self) -> None:
        """Forget an earlier start's notice."""
        self._path.unlink(missing_ok=True)

    def put(self, action: str, why: str) -> bool:
        """Leave a notice; False if one that says as much is there: a stop is not taken back by a wish to save."""
        there = self.look()
        if there is not None and (there.action == STOP or there.action == action):
            return False
        write_atomic(self._path, json.dumps(asdict(Notice(action, why, time.time()))) + "\n")
        return True

    def look(self) -> Notice | None:
        """The notice, if there is one."""
        try:
            return Notice(**json.loads(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
