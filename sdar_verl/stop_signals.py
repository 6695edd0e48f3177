"""SIGTERM stops a command like Ctrl-C, so that whatever it started goes with it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def terminate_like_ctrl_c() -> Iterator[None]:
    """Raise `KeyboardInterrupt` on SIGTERM; the handler before is put back at the end."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt(f"signal {number}")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
