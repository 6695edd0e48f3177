"""Run as a file of its own: makes sure to end with its parent, keeps to its cores, and becomes the command.

    python -I child.py PARENT CORES COMMAND [ARGUMENT ...]

PARENT is a process id, CORES a list such as ``0,1`` or ``all``. It is done here and not between the parent's fork and
exec, where Python code can hang or crash in a parent of several threads.
"""

import ctypes
import os
import signal
import sys

STOP = signal.SIGINT  # Ray's own handler of SIGTERM ends the driver before it can clean up
_PR_SET_PDEATHSIG = 1


def main(parent: str, cores: str, *command: str) -> None:
    """Become `command`, which is sent `STOP` when the thread that started this process ends, however it ends."""
    # A shell lets its background jobs ignore the signal, and children inherit that: the run must listen to it again.
    signal.signal(STOP, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, STOP)
    if os.getppid() != int(parent):  # it ended before the kernel was told
        sys.exit("the process that started this one is gone")
    if cores != "all":
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"cannot start {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(*sys.argv[1:])
