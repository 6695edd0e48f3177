"""What this machine has left: memory inside its limits, shared memory, disk, open files, ports. Reads only."""

from __future__ import annotations

import os
import resource
import shutil
import socket
from pathlib import Path

import psutil

GIB = 1 << 30
_CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes that a new process could take: the machine's or the control group's, whichever is less.

    Files in the page cache count as available, as they do in the machine's own figure.
    """
    free = psutil.virtual_memory().available
    for folder, names in _memory_groups():
        limit = _read_number(folder / names[0])
        used = _read_number(folder / names[1])
        if limit is not None and used is not None:
            free = min(free, limit - used + _page_cache(folder))
    return max(0, free)


def _memory_groups() -> list[tuple[Path, tuple[str, str]]]:
    """The control groups this process lives in, with their ancestors, and the names of limit and usage."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return []
    groups = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = _CGROUP, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root, names = _CGROUP / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        folder = root / path.lstrip("/")
        while folder != root.parent:
            groups.append((folder, names))
            folder = folder.parent
    return groups


def _read_number(path: Path) -> int | None:
    """The number in `path`; None where there is no such file or it says ``max``."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _page_cache(folder: Path) -> int:
    try:
        pairs = dict(line.split()[:2] for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    except OSError:
        return 0
    return int(pairs.get("total_inactive_file", pairs.get("inactive_file", 0)))


def free_disk(path: Path | str) -> int:
    """Free bytes where `path` lies, or will lie once its missing folders are made."""
    folder = Path(path).expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def free_shared_memory() -> int | None:
    """Free bytes of /dev/shm; None where the machine has none."""
    return shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else None


def open_files_limit() -> tuple[int, int]:
    """Soft and hard limit of open files of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return tuple(1 << 62 if limit == resource.RLIM_INFINITY else limit for limit in (soft, hard))


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """True if a server could listen on ``host:port`` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def answers(host: str, port: int, timeout: float = 3.0) -> str | None:
    """None if something accepts a connection at ``host:port`` within `timeout` seconds, else why not."""
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError as err:
        return str(err)
    return None
