"""Shared memory that a killed process could not give back.

vLLM and the weight transfer use named segments in /dev/shm; who is killed leaves its files there. A file that no live
process maps or holds open has no owner any more.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
_OURS = re.compile(r"psm_[0-9a-f]+|sem\.mp-\w+|verl_weights_[0-9a-f]+")


def segments() -> set[str]:
    """Names of the segments of the kinds that a run makes, whoever made them."""
    if not SHARED_MEMORY.is_dir():
        return set()
    return {path.name for path in SHARED_MEMORY.iterdir() if _OURS.fullmatch(path.name)}


def in_use() -> set[str]:
    """Names of the segments that a live process maps or holds open."""
    used: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            used.update(re.findall(r"/dev/shm/(\S+)", (process / "maps").read_text()))
            for handle in (process / "fd").iterdir():
                target = os.readlink(handle)
                if target.startswith("/dev/shm/"):
                    used.add(target.removeprefix("/dev/shm/").removesuffix(" (deleted)"))
        except OSError:
            continue  # the process ended meanwhile, or is another user's
    return used


def sweep(since: float) -> list[str]:
    """Remove this user's unused segments that were made after `since` (seconds since the epoch); returns their names.

    Segments of other live runs are in use and stay.
    """
    removed = []
    candidates = segments()
    if not candidates:
        return removed
    for name in sorted(candidates - in_use()):
        path = SHARED_MEMORY / name
        try:
            status = path.stat()
            if status.st_uid == os.getuid() and status.st_mtime >= since:
                path.unlink()
                removed.append(name)
        except FileNotFoundError:
            continue  # its owner was quicker
    return removed
