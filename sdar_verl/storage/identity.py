"""Which run this is, so that two runs never share a place in S3."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from uuid import uuid4

from sdar_verl.evaluation.files import write_atomic
from sdar_verl.storage.errors import StorageError

FILE = "run.json"


@dataclass(frozen=True)
class RunIdentity:
    """Attributes:
    run: drawn at the first start, the same for all of them.
    start: how often the run was started, from 1; also counted over machines.
    """

    run: str
    start: int

    @classmethod
    def new(cls) -> RunIdentity:
        """Of a run that was never started."""
        return cls(uuid4().hex, 0)

    def after(self, start: int) -> RunIdentity:
        """Of the next start, where others up to `start` are known."""
        return replace(self, start=max(self.start, start) + 1)

    def write(self, run_dir: Path) -> None:
        """Into the run's folder."""
        write_atomic(run_dir / FILE, json.dumps(asdict(self)) + "\n")

    @classmethod
    def read(cls, run_dir: Path) -> RunIdentity | None:
        """From the run's folder; None if it has none."""
        path = run_dir / FILE
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            run, start = content["run"], content["start"]
            if not re.fullmatch(r"[0-9a-f]{32}", run) or not isinstance(start, int):
                raise ValueError("no identity of a run")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{path} is damaged ({error}); remove it, or choose another sdar.run_dir") from error
        return cls(run, start)
