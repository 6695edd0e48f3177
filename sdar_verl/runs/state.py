"""What a folder of runs was made for, so that a later call goes on with the same and never mixes two things."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdar_verl.errors import ConfigError
from sdar_verl.evaluation.files import write_atomic

LOCK = ".lock"


def open_folder(out: Path, file: str, inputs: Mapping[str, Any], *, may_grow: bool = False) -> dict[str, Any] | None:
    """What ``<out>/<file>`` says, after checking that the folder was made for the same `inputs`.

    Args:
        out: folder of runs.
        file: name of the JSON file in it; its key ``inputs`` is compared.
        inputs: all that decides what the runs do, as plain values.
        may_grow: inputs may be new, and old ones absent, as long as none of those in both differs.

    Returns:
        None for a folder that is new or empty.

    Raises:
        ConfigError: `out` holds files of something else, or was made with other inputs; the message names them.
    """
    if not (out / file).is_file():
        if out.exists() and any(path.name != LOCK for path in out.iterdir()):
            raise ConfigError(f"{out} holds files but no {file}; choose another --out")
        return None
    saved = json.loads((out / file).read_text(encoding="utf-8"))
    wanted, before = json.loads(json.dumps(dict(inputs))), saved["inputs"]
    keys = wanted.keys() & before.keys() if may_grow else wanted.keys() | before.keys()
    if different := [key for key in keys if wanted.get(key) != before.get(key)]:
        raise ConfigError(
            f"{out} was made with another {', '.join(sorted(different))}; choose another --out, or remove that folder"
        )
    return saved


def save(out: Path, file: str, content: Mapping[str, Any]) -> None:
    """Write ``<out>/<file>`` atomically."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / file, json.dumps(content, indent=1) + "\n")


@contextmanager
def hold(out: Path, say: Callable[[str], None], seconds: float = 120.0) -> Iterator[int]:
    """Keep every other call out of the folder; yields the lock's file descriptor.

    A run that inherits the descriptor holds the lock as long as it lives, so a call after a kill waits for what the
    killed one had started.

    Raises:
        ConfigError: another call still has the folder after `seconds`.
    """
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _lock(handle, out, say, seconds)
        yield handle
    finally:
        os.close(handle)


def _lock(handle: int, out: Path, say: Callable[[str], None], seconds: float) -> None:
    began, said = time.monotonic(), False
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() - began > seconds:
                raise ConfigError(f"another call is at work in {out}; wait for it, or choose another --out") from None
        if not said:
            say(f"another call, or a run that it started, is still at work in {out}; waiting for its end")
            said = True
        time.sleep(0.2)
