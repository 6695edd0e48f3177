"""``plan.json``: what a quickstart folder is for, and which of its runs are finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sdar_verl.runs import state

FILE = "plan.json"


@dataclass
class State:
    """Attributes:
    inputs: all that decides what the runs do, as plain values.
    steps: training steps of every run; may be lowered while none is finished.
    finished: methods whose run is complete.
    """

    inputs: dict[str, Any]
    steps: int
    finished: list[str] = field(default_factory=list)

    def save(self, out: Path) -> None:
        """Write ``<out>/plan.json`` atomically."""
        state.save(out, FILE, asdict(self))


def open_state(out: Path, inputs: Mapping[str, Any], steps: int) -> State:
    """The state of the folder, or a new one; raises `ConfigError` where the folder is for something else."""
    saved = state.open_folder(out, FILE, inputs)
    return State(json.loads(json.dumps(dict(inputs))), steps) if saved is None else State(**saved)
