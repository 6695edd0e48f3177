"""The checkpoints of one run on this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from sdar_verl.evaluation.files import write_atomic
from sdar_verl.storage.errors import DamageError
from sdar_verl.storage.manifest import LOCAL_NAME, Manifest, problems

_ASIDE, _EARLIER = "damaged_", "earlier-"


def folder_of(root: Path, step: int) -> Path:
    """verl's folder of a checkpoint."""
    return root / f"global_step_{step}"


def write_local(folder: Path, manifest: Manifest) -> None:
    """Put the manifest beside the files that it describes."""
    write_atomic(folder / LOCAL_NAME, manifest.to_json())


def read_local(folder: Path) -> Manifest | None:
    """The manifest of a checkpoint's folder; None if it has none; raises `DamageError` if it is not whole."""
    path = folder / LOCAL_NAME
    return Manifest.from_json(path.read_bytes(), str(path)) if path.is_file() else None


def begin_saving(folder: Path) -> None:
    """Make an older checkpoint in `folder` incomplete before it is written over: half old, half new is none."""
    for name in (LOCAL_NAME, "data.pt"):
        (folder / name).unlink(missing_ok=True)


def damage(folder: Path, *, read: bool) -> list[str]:
    """What is wrong with a complete checkpoint, by its manifest; one that a kill left without is taken as it is."""
    try:
        manifest = read_local(folder)
    except DamageError as error:
        return [str(error)]
    return [] if manifest is None else problems(folder, manifest.checkpoint, read=read)


def is_of_another(folder: Path, run: str) -> bool:
    """Whether the manifest names another run than `run`; without one, or with a broken one, nothing tells."""
    try:
        manifest = read_local(folder)
    except DamageError:
        return False
    return manifest is not None and manifest.run != run


def put_away(root: Path, steps: Iterable[int]) -> Path:
    """Move whole checkpoints that do not belong to the course of this run out of its way; nothing is deleted."""
    number = 1 + sum(1 for _ in root.glob(f"{_EARLIER}*"))
    while (folder := root / f"{_EARLIER}{number}").exists():
        number += 1
    folder.mkdir()
    for step in steps:
        os.replace(folder_of(root, step), folder / folder_of(root, step).name)
    return folder


def set_aside(root: Path, step: int) -> Path:
    """Rename a broken checkpoint, so that nothing goes on from it; of several the last one is kept, for a look."""
    for old in root.glob(f"{_ASIDE}*"):
        shutil.rmtree(old, ignore_errors=True)
    aside = root / f"{_ASIDE}{folder_of(root, step).name}"
    os.replace(folder_of(root, step), aside)
    return aside
