"""One environment worker: serves several environments over a socket, one call at a time, until the socket closes.

Started by `sdar_envs.pool` as ``python -m sdar_envs.pool_worker <descriptor> <parent process id>``. Every message is
one line of JSON. The first tells which environments to serve; then each call gets exactly one answer: ``{"ok": ...}``,
or ``{"failed": reason}`` when the environment raised.

The worker never outlives its parent: the kernel kills it where it can (Linux), and everywhere a thread ends it as
soon as the other end of the socket is gone, even while an environment is busy or stuck.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from sdar_envs.base import EnvUnreachable, TaskRef, TextEnv

_PR_SET_PDEATHSIG = 1


class EnvHost:
    """The environments of one worker; each is made at its first use and dropped when it raises.

    Args:
        make: makes one environment.
        count: how many environments may be in play at once.
    """

    def __init__(self, make: Callable[[], TextEnv], count: int) -> None:
        self._make = make
        self._envs: list[TextEnv | None] = [None] * count
        self._envs[0] = make()  # a wrong configuration shows at the start, not in the first episode

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Serve one call; whatever the environment raises ends that episode only."""
        index = message["env"]
        try:
            if message["op"] == "reset":
                env = self._envs[index] = self._envs[index] or self._make()
                return {"ok": env.reset(task=TaskRef(**message["task"]), seed=message["seed"])}
            env = self._envs[index]
            if env is None:
                return {"failed": "step without a running episode"}
            return {"ok": env.step(message["action"])}
        except Exception as error:  # noqa: BLE001 - the border to foreign code: passed on to the caller, not hidden
            self._envs[index] = None
            return {"failed": f"{type(error).__name__}: {error}"}

    def close(self) -> None:
        for env in self._envs:
            if env is not None:
                env.close()


def main() -> None:
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    _die_with_parent(descriptor, parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business; it ends its workers
    os.dup2(2, 1)  # engines that print must not disturb anybody's output
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rwb") as stream:
        setup = json.loads(stream.readline())
        try:
            family = import_module(setup["module"]).FAMILY
            host = EnvHost(lambda: family.make_env(setup["config"]), setup["envs"])
        except Exception as error:  # noqa: BLE001 - the parent raises it
            unreachable = isinstance(error, EnvUnreachable)
            _send(stream, {"failed": f"{type(error).__name__}: {error}", "unreachable": unreachable})
            return
        _send(stream, {"ok": os.getpid()})
        for line in stream:
            message = json.loads(line)
            if message["op"] == "close":
                host.close()
                _send(stream, {"ok": None})
                return
            _send(stream, host.answer(message))


def _send(stream: Any, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def _die_with_parent(descriptor: int, parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(descriptor,), daemon=True, name="parent-watch").start()
    if os.getppid() != parent:  # it died before the kernel was told
        os._exit(1)


def _watch(descriptor: int) -> None:
    watched = select.poll()
    watched.register(descriptor, 0)  # 0: only hang-ups and errors
    watched.poll()
    os._exit(1)


if __name__ == "__main__":
    main()
