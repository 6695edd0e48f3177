"""``plan.json``: what a quickstart folder is for, and which of its runs are finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sdar_verl.errors import ConfigError
from sdar_verl.evaluation.files import write_atomic

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
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / FILE, json.dumps(asdict(self), indent=1) + "\n")


def open_state(out: Path, inputs: Mapping[str, Any], steps: int) -> State:
    """The state of the folder, or a new one.

    Raises:
        ConfigError: `out` holds files of something else, or of a quickstart with other inputs; the message names them.
    """
    wanted = json.loads(json.dumps(dict(inputs)))
    if not (out / FILE).is_file():
        if out.exists() and any(out.iterdir()):
            raise ConfigError(f"{out} holds files but no {FILE}; choose another --out")
        return State(wanted, steps)
    state = State(**json.loads((out / FILE).read_text(encoding="utf-8")))
    if different := [key for key in wanted | state.inputs if wanted.get(key) != state.inputs.get(key)]:
        raise ConfigError(
            f"{out} was made with another {', '.join(sorted(different))}; choose another --out, or remove that folder"
        )
    return state
