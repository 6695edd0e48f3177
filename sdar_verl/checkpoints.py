"""Which checkpoint a run goes on from; never silently from scratch when there was a run."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Collection
from pathlib import Path

from sdar_verl.errors import ConfigError
from sdar_verl.evaluation.files import write_atomic
from sdar_verl.evaluation.jsonl import read_lines

_PRUNED = ".pruned-"
TRACKER = "latest_checkpointed_iteration.txt"
_FOLDER = re.compile(r"global_step_(\d+)")
_SHARD = re.compile(r"(?P<kind>.+)_world_size_(?P<of>\d+)_rank_(?P<rank>\d+)\.pt")


def is_complete(folder: Path) -> bool:
    """True if every part of every rank was written: verl saves the actor first and ``data.pt`` (a zip file) last."""
    actor = folder / "actor"
    return (
        actor.is_dir()
        and any(actor.iterdir())
        and zipfile.is_zipfile(folder / "data.pt")
        and not missing_shards(folder)
    )


def missing_shards(folder: Path) -> list[str]:
    """Files of ranks that `folder` lacks, by the number of ranks that its other files name."""
    found: dict[tuple[Path, str, int], set[int]] = {}
    for path in folder.rglob("*.pt"):
        if match := _SHARD.fullmatch(path.name):
            found.setdefault((path.parent, match["kind"], int(match["of"])), set()).add(int(match["rank"]))
    return [
        (parent / f"{kind}_world_size_{ranks}_rank_{rank}.pt").relative_to(folder).as_posix()
        for (parent, kind, ranks), there in found.items()
        for rank in range(ranks)
        if rank not in there
    ]


def complete_steps(root: Path) -> list[int]:
    """Steps of all complete checkpoints under `root`, ascending."""
    if not root.is_dir():
        return []
    found = [(int(match[1]), path) for path in root.iterdir() if (match := _FOLDER.fullmatch(path.name))]
    return sorted(step for step, path in found if is_complete(path))


def has_trained(run_dir: Path) -> bool:
    """Whether a step of the run was recorded; one that was stopped before has nothing to lose."""
    metrics = run_dir / "metrics.jsonl"
    return metrics.is_file() and any(line["step"] > 0 for line in read_lines(metrics))


def prepare_resume(root: Path, *, had_run: bool, resume_mode: str, keep: int | None) -> int | None:
    """Point verl's tracker at the newest complete checkpoint and prune older ones.

    verl follows the tracker blindly: after a kill it may name a folder that is deleted or half written, and verl then
    starts from scratch without a word.

    Args:
        root: the run's checkpoint folder.
        had_run: the run folder already holds a run that has trained.
        resume_mode: verl's ``trainer.resume_mode``.
        keep: complete checkpoints to keep; those of earlier processes are unknown to verl and would stay for ever.

    Returns:
        The step that the run goes on from, or None for a fresh start.

    Raises:
        ConfigError: there was a run, but nothing to go on from.
    """
    if resume_mode != "auto":
        return None
    steps = complete_steps(root)
    if not steps:
        if had_run:
            raise ConfigError(
                f"{root.parent} holds a run without a complete checkpoint, so it cannot go on. Choose another "
                "sdar.run_dir, or start this one again with trainer.resume_mode=disable"
            )
        return None
    write_atomic(root / TRACKER, str(steps[-1]))
    if keep:
        prune(root, keep)
    return steps[-1]


def prune(root: Path, keep: int, protect: Collection[int] = ()) -> list[int]:
    """Remove all but the newest `keep` (at least 1) complete checkpoints and those in `protect`; returns their steps.

    Each first loses its name, all at once: a kill in the middle leaves no half checkpoint that looks whole.
    """
    if keep < 1:
        raise ConfigError(f"the newest checkpoint is always kept, so {keep} cannot be kept; use 1 or more")
    for half in root.glob(f"{_PRUNED}*"):
        shutil.rmtree(half, ignore_errors=True)
    gone = [step for step in complete_steps(root)[:-keep] if step not in protect]
    for step in gone:
        half = root / f"{_PRUNED}{step}"
        os.replace(root / f"global_step_{step}", half)
        shutil.rmtree(half, ignore_errors=True)
    return gone
