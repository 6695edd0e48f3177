"""A process that ends with the one that started it, even if that is killed.

The child asks for it itself: what runs between fork and exec can crash in a parent of many threads and libraries.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT = "SDAR_PARENT"  # environment variable: process id of the parent
_PR_SET_PDEATHSIG = 1


def end_with_it() -> None:
    """Be sent SIGTERM when the parent named by `PARENT` ends (Linux: its thread that started this process).

    Without the variable nothing happens. Raises SystemExit if the parent is gone already.
    """
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it ended before the kernel was told
        sys.exit("the process that started this one is gone")
