"""``python -m sdar_verl.forks.server FILE FOLDER MODULES``: imports the modules, then forks for whoever asks.

FILE is the number of the open, listening socket; FOLDER goes when the server does.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import selectors
import shutil
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sdar_verl.forks.client import MAX_FILES, REFUSED
from sdar_verl.forks.program import become

# Read when a process starts or imports: a fork is no substitute for a process with other values of these.
DECIDED = (
    "PYTHONHASHSEED", "PYTHONPATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VERL_PLATFORM",
    "VERL_FULL_DETERMINISM", "VLLM_BATCH_INVARIANT",
)  # fmt: skip

_PATIENCE = 10.0  # seconds for a client to say what it wants
_UNSET = "0"  # what verl passes on of a variable that nobody has set


class Server:
    """Forks on request, and tells each client how its process ended.

    Args:
        listener: takes the clients' connections.
        lifeline: end of file here is the order to end.
        environment: with which everything was imported.
    """

    def __init__(self, listener: socket.socket, lifeline: int, environment: Mapping[str, str]):
        self._listener, self._lifeline, self._environment = listener, lifeline, environment
        self._clients: dict[socket.socket, int] = {}
        self._wake, self._waker = os.pipe()
        for end in (self._wake, self._waker):
            os.set_blocking(end, False)
        self._selector = selectors.DefaultSelector()
        for source in (listener, lifeline, self._wake):
            self._selector.register(source, selectors.EVENT_READ)

    def serve(self) -> dict | None:
        """Returns None when it is to end, and a request in the process that is to fulfil it."""
        signal.set_wakeup_fd(self._waker)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj == self._lifeline:
                    for process in self._clients.values():
                        os.kill(process, signal.SIGKILL)
                    return None
                if key.fileobj is self._listener:
                    if (request := self._accept()) is not None:
                        return request
                elif key.fileobj == self._wake:
                    os.read(self._wake, 4096)
                    self._reap()
                else:
                    self._lost(key.fileobj)

    def _accept(self) -> dict | None:
        connection, _ = self._listener.accept()
        connection.settimeout(_PATIENCE)
        try:
            request = _read(connection)
        except (OSError, ValueError):
            connection.close()
            return None
        process = self._fork(request["environment"])
        if process is None:
            self._leave(connection)
            return request
        for file in request["received"]:
            os.close(file)
        try:
            connection.sendall(process.to_bytes(8, "big"))
        except OSError:
            pass  # the client is gone; the selector tells
        if process == REFUSED:
            connection.close()
        else:
            self._clients[connection] = process
            self._selector.register(connection, selectors.EVENT_READ)
        return None

    def _fork(self, wanted: Mapping[str, str]) -> int | None:
        """The new process' id or `REFUSED`; None in the new process."""
        why = self._unfit(wanted)
        try:
            if not why:
                return os.fork() or None
        except OSError as error:  # no memory, or too many processes
            why = str(error)
        print(f"refused: {why}", flush=True)
        return REFUSED

    def _unfit(self, wanted: Mapping[str, str]) -> str:
        """Why a fork would not be what is wanted; empty if it is."""
        if threads := len(os.listdir("/proc/self/task")) - 1:
            return f"{threads} threads would be missing in a fork"
        loaded = Path("/proc/self/maps").read_text()
        if missing := [name for name in re.split("[: ]", wanted.get("LD_PRELOAD", "")) if name not in loaded]:
            return f"{', '.join(missing)} should be loaded first"  # vLLM wants torch's own OpenMP, which is there
        different = [n for n in DECIDED if (wanted.get(n) or _UNSET) != (self._environment.get(n) or _UNSET)]
        return ", ".join(f"{n} is {wanted.get(n)!r}, not {self._environment.get(n)!r}" for n in different)

    def _reap(self) -> None:
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            for connection in [own for own, known in self._clients.items() if known == process]:
                try:
                    connection.sendall(status.to_bytes(8, "big"))
                except OSError:
                    pass  # killed just before its process ended
                self._forget(connection)

    def _lost(self, connection: socket.socket) -> None:
        """A client never says anything more: it is gone, and its process must not outlive it."""
        if connection in self._clients:
            os.kill(self._clients[connection], signal.SIGKILL)
            self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        del self._clients[connection]
        connection.close()

    def _leave(self, connection: socket.socket) -> None:
        """In the fork: give back all that is the server's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        for own in (self._listener, connection, *self._clients):
            own.close()
        for file in (self._wake, self._waker, self._lifeline):
            os.close(file)


def _read(connection: socket.socket) -> dict:
    head, received, _, _ = socket.recv_fds(connection, 8, MAX_FILES)
    if len(head) < 8:
        raise ValueError("no request")
    wanted, parts = int.from_bytes(head, "big"), b""
    while len(parts) < wanted:
        if not (part := connection.recv(wanted - len(parts))):
            raise ValueError("half a request")
        parts += part
    return json.loads(parts) | {"received": received}


def main(listener: socket.socket, modules: Sequence[str]) -> dict | None:
    """Import `modules`, then fork for whoever asks, until standard input ends; what `Server.serve` returns."""
    environment = dict(os.environ)  # imports change it
    gc.disable()  # it takes a quarter of the time of these imports
    for name in modules:
        importlib.import_module(name)
    if "ray" in sys.modules:
        raise RuntimeError("one of the modules imports Ray, which cannot be forked")
    gc.freeze()  # what is shared stays shared: the collector never writes to it
    gc.enable()
    return Server(listener, os.dup(0), environment).serve()


if __name__ == "__main__":
    try:
        found = main(socket.socket(fileno=int(sys.argv[1])), sys.argv[3:])
    except BaseException:
        shutil.rmtree(sys.argv[2], ignore_errors=True)
        raise
    if found is None:
        shutil.rmtree(sys.argv[2], ignore_errors=True)
        os._exit(0)  # nothing else is to be ended, and what was imported has much to say when it is
    become(found)
