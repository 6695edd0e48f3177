"""Starts a command again as long as it ends with code 75 or 69; with the standard library alone.

75: its machine was about to go away, and what it had is saved. 69: S3, AWS or the teacher could not be reached. Any
other code ends this script with it. SIGTERM and SIGINT are passed on, and nothing is started after them.

Variables: SUPERVISE_WAIT: seconds before the next start (10), after each further 69 in a row twice as long, at most
64 times. SUPERVISE_LIMIT: most starts (1000). SUPERVISE_UNREACHABLE: so many 69 in a row are too many (10).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

AGAIN, UNREACHABLE = 75, 69


class Supervisor:
    """Args:
    command: what is started.
    wait: seconds before another start; `limit`: most starts; `unreachable`: most 69 in a row.
    """

    def __init__(self, command: list[str], wait: float, limit: int, unreachable: int):
        self._command, self._wait, self._limit, self._unreachable = command, wait, limit, unreachable
        self._stopped = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []  # signals that came while the child was started

    def pass_on(self, number: int, frame: object = None) -> None:
        """Give a signal to the command, and start nothing more."""
        self._stopped.set()
        if self._child is None:
            self._early.append(number)
        elif self._child.poll() is None:
            self._child.send_signal(number)

    def run(self) -> int:
        """The code of the last start."""
        code, failed = AGAIN, 0
        for start in range(1, self._limit + 1):
            if start > 1:
                pause = self._wait * 2 ** min(6, max(0, failed - 1))
                print(f"supervise: start {start} in {pause:g} s", file=sys.stderr, flush=True)
                self._stopped.wait(pause)
            if self._stopped.is_set():
                break
            code = self._start()
            failed = failed + 1 if code == UNREACHABLE else 0
            if code not in (AGAIN, UNREACHABLE) or self._stopped.is_set() or failed >= self._unreachable:
                break
        return code

    def _start(self) -> int:
        self._child, self._early = None, []
        # a session of its own: a terminal's Ctrl-C comes through `pass_on`, once
        child = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True)
        self._child = child
        while self._early:
            child.send_signal(self._early.pop(0))
        code = child.wait()
        return 128 - code if code < 0 else code


def main() -> int:
    if len(sys.argv) < 2:
        print("usage: supervise.sh COMMAND [ARGUMENTS]", file=sys.stderr)
        return 2
    variables = os.environ
    supervisor = Supervisor(
        sys.argv[1:],
        float(variables.get("SUPERVISE_WAIT", "10")),
        int(variables.get("SUPERVISE_LIMIT", "1000")),
        int(variables.get("SUPERVISE_UNREACHABLE", "10")),
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, supervisor.pass_on)
    try:
        return supervisor.run()
    except OSError as error:
        print(f"supervise: {error}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main())
