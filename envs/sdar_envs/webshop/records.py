"""Many JSON values in one file, read one at a time through a memory map; folders that are whole or not there."""

from __future__ import annotations

import json
import mmap
import shutil
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sdar_envs.base import EnvError


class Records:
    """The values written by `write_records`, by number."""

    def __init__(self, folder: Path, name: str) -> None:
        try:
            self._starts = map_array(folder / f"{name}.npy")
            with (folder / f"{name}.jsonl").open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise EnvError(f"{folder} lacks {name} ({error}); remove the folder and prepare again") from error

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> Any:
        return json.loads(self._map[int(self._starts[number]) : int(self._starts[number + 1])])


def map_array(path: Path) -> np.ndarray:
    """The array in a ``.npy`` file through a memory map, as a plain array: `numpy.memmap` is slow to index."""
    return np.load(path, mmap_mode="r").view(np.ndarray)


def write_records(folder: Path, name: str, values: Iterable[Any]) -> int:
    """Write ``<name>.jsonl`` and its index ``<name>.npy``; returns how many values there were."""
    starts = [0]
    with (folder / f"{name}.jsonl").open("wb") as file:
        for value in values:
            starts.append(starts[-1] + file.write(json.dumps(value).encode() + b"\n"))
    np.save(folder / f"{name}.npy", np.array(starts, np.int64))
    return len(starts) - 1


def write_folder(folder: Path, last: str, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder and give it its name at the end, so that no half-written one is ever seen.

    Args:
        last: a file that every whole folder holds. Where another process was faster, its folder is kept.

    Raises:
        EnvError: the folder cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.partial-{uuid.uuid4().hex}")
    try:
        partial.mkdir(parents=True)
        write(partial)
        try:
            partial.rename(folder)
        except OSError:
            if not (folder / last).is_file():
                raise
    except OSError as error:
        raise EnvError(
            f"cannot write {folder} ({error.strerror}); "
            "set env.webshop.cache_dir or SDAR_WEBSHOP_CACHE to another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
