"""``sweep.json`` and ``arm.json``: what a comparison's folder is for, which runs it has, and what each of them is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sdar_verl.compare.sweep import Arm, Sweep
from sdar_verl.evaluation.files import write_atomic
from sdar_verl.runs import state

FILE, ARM_FILE = "sweep.json", "arm.json"


@dataclass
class RunState:
    """Attributes:
    arm, seed: which run.
    status: ``planned``, ``finished``, ``failed``, or ``stopped`` (by a guard that was told to).
    seconds: wall time of the call that ended it, start included; None where nobody measured it.
    reason: of a failure, in a line.
    """

    arm: str
    seed: int
    status: str = "planned"
    seconds: float | None = None
    reason: str = ""

    @property
    def done(self) -> bool:
        """Whether there is nothing left to run."""
        return self.status in ("finished", "stopped")


@dataclass
class SweepState:
    """Attributes:
    inputs: all that decides what the runs do, see `inputs_of`.
    about, baseline: as in the comparison's file.
    runs: folder of each run, relative to that of the comparison.
    """

    inputs: dict[str, Any]
    about: str
    baseline: str
    runs: dict[str, RunState] = field(default_factory=dict)

    def save(self, out: Path) -> None:
        """Write ``<out>/sweep.json`` atomically."""
        state.save(out, FILE, asdict(self))


def inputs_of(sweep: Sweep, lab_version: str | None) -> dict[str, Any]:
    """What must stay as it was: what all share, and each arm's overrides. Seeds and arms may be added."""
    shared = {"common overrides": list(sweep.common), "lab": asdict(sweep.lab) if sweep.lab else None}
    return shared | {"lab version": lab_version} | {f"arm {arm.name}": list(arm.overrides) for arm in sweep.arms}


def open_sweep(out: Path, sweep: Sweep, lab_version: str | None) -> SweepState:
    """The state of the folder with the sweep's arms added, or a new one.

    Raises:
        ConfigError: the folder holds something else, or the same arms with other settings.
    """
    wanted = json.loads(json.dumps(inputs_of(sweep, lab_version)))
    saved = state.open_folder(out, FILE, wanted, may_grow=True)
    if saved is None:
        return SweepState(wanted, sweep.about, sweep.baseline)
    found = parse(saved)
    found.inputs |= wanted
    return found


def parse(saved: Mapping[str, Any]) -> SweepState:
    """The content of a ``sweep.json``."""
    runs = {folder: RunState(**own) for folder, own in saved["runs"].items()}
    return SweepState(saved["inputs"], saved["about"], saved["baseline"], runs)


def read(out: Path) -> SweepState:
    """The state of a comparison's folder, which must be one."""
    return parse(json.loads((out / FILE).read_text(encoding="utf-8")))


def write_arm(run: Path, arm: Arm, seed: int, changes: Sequence[str]) -> None:
    """Write ``<run>/arm.json``: the run's arm and seed, and the configuration keys that the arm is about."""
    content = {"arm": arm.name, "seed": seed, "overrides": list(arm.overrides), "changes": list(changes)}
    write_atomic(run / ARM_FILE, json.dumps(content, indent=1) + "\n")
