"""What a checkpoint consists of, with hashes: the file that makes it valid. It is written after everything else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from sdar_verl.storage.errors import DamageError

FORMAT = 1
LOCAL_NAME = "checkpoint.json"  # in the folder of the checkpoint that it describes
_BLOCK = 1 << 20


@dataclass(frozen=True)
class StoredFile:
    """One file: its `path` with ``/`` under the folder it belongs to, `size` in bytes, `sha256` in hexadecimal."""

    path: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        if not parts or self.path.startswith("/") or ".." in parts or "\\" in self.path:
            raise ValueError(f"{self.path!r} is no path inside a checkpoint")


@dataclass(frozen=True)
class Manifest:
    """Attributes:
    run: identity of the run, drawn at its first start.
    step: finished training steps.
    start: which start of the run saved it, from 1; of two checkpoints of one step the later start's is newer.
    saved: when, UTC; for people: nothing is ordered by it, since clocks differ.
    checkpoint: files of the checkpoint's folder.
    records: files of the run's folder as they were when the step was recorded; none in a local manifest.
    packages: versions of what wrote it.
    """

    run: str
    step: int
    start: int
    saved: str
    checkpoint: tuple[StoredFile, ...]
    records: tuple[StoredFile, ...]
    packages: dict[str, str]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in (*self.checkpoint, *self.records))

    def to_json(self) -> str:
        """As text, with a hash over itself."""
        content = {"format": FORMAT, **asdict(self)}
        return json.dumps({**content, "sha256": _digest(content)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Manifest:
        """Read `to_json`; raises `DamageError` that names `where` if it is not whole."""
        try:
            content: dict[str, Any] = json.loads(text)
            claimed = content.pop("sha256")
            if claimed != _digest(content):
                raise ValueError("its hash does not fit its content")
            if content.pop("format") != FORMAT:
                raise ValueError("another version of sdar-verl wrote it")
            content = {field.name: content[field.name] for field in fields(cls)}
            for name in ("checkpoint", "records"):
                content[name] = tuple(StoredFile(**file) for file in content[name])
            return cls(**content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DamageError(f"{where} is damaged: {error}") from error


def describe_folder(folder: Path) -> tuple[StoredFile, ...]:
    """All files of a checkpoint's folder, read whole; raises OSError if one goes away meanwhile."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != LOCAL_NAME)
    return tuple(describe(path, path.relative_to(folder).as_posix()) for path in files)


def describe(path: Path, name: str) -> StoredFile:
    """One file as it is now."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return StoredFile(name, size, digest.hexdigest())


def problems(folder: Path, files: Iterable[StoredFile], *, read: bool = True) -> list[str]:
    """What is wrong with `folder`, a line for each file that is; empty if nothing.

    Args:
        read: compare hashes, which reads everything; otherwise sizes alone.
    """
    found = []
    for file in files:
        path = folder / file.path
        try:
            size = path.stat().st_size if path.is_file() else None
            if size is None:
                found.append(f"{file.path} is missing")
            elif size != file.size:
                found.append(f"{file.path} has {size} bytes instead of {file.size}")
            elif read and describe(path, file.path).sha256 != file.sha256:
                found.append(f"{file.path} has other content than was saved")
        except OSError as error:
            found.append(f"{file.path} cannot be read: {error}")
    return found


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
