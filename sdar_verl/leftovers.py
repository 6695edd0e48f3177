"""Shared memory that a killed process could not give back.

vLLM and the weight transfer use named segments in /dev/shm; who is killed leaves its files there. A file that no live
process maps or holds open has no owner any more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
_MAPPED = re.compile(r" (\d+) +/dev/shm/")
_OURS = re.compile(r"psm_[0-9a-f]+|sem\.mp-\w+|verl_weights_[0-9a-f]+")


def segments() -> set[str]:
    """Names of the segments of the kinds that a run makes, whoever made them."""
    if not SHARED_MEMORY.is_dir():
        return set()
    return {path.name for path in SHARED_MEMORY.iterdir() if _OURS.fullmatch(path.name)}


def in_use(pids: Iterable[int] | None = None) -> set[int]:
    """Inodes of the shared memory that a live process (of those in `pids`, if given) maps or holds open.

    Not names: a semaphore is mapped by its maker under a temporary name, and under its own only by who opens it later.
    """
    used: set[int] = set()
    processes = Path("/proc").glob("[0-9]*") if pids is None else (Path(f"/proc/{pid}") for pid in pids)
    for process in processes:
        try:
            used.update(int(inode) for inode in _MAPPED.findall((process / "maps").read_text()))
            for handle in (process / "fd").iterdir():
                if os.readlink(handle).startswith(f"{SHARED_MEMORY}/"):
                    used.add(handle.stat().st_ino)
        except OSError:
            continue  # the process ended meanwhile, or is another user's
    return used


def unused() -> dict[str, os.stat_result]:
    """The segments that no live process holds, by name."""
    found = {}
    for name in sorted(segments()):
        try:
            found[name] = (SHARED_MEMORY / name).stat()
        except FileNotFoundError:
            continue  # its owner was quicker
    used = in_use() if found else set()
    return {name: status for name, status in found.items() if status.st_ino not in used}


def sweep(since: float) -> list[str]:
    """Remove this user's unused segments that were made after `since` (seconds since the epoch); returns their names.

    Segments of other live runs are in use and stay.
    """
    removed = []
    for name, status in unused().items():
        if status.st_uid == os.getuid() and status.st_mtime >= since:
            (SHARED_MEMORY / name).unlink(missing_ok=True)
            removed.append(name)
    return removed
