"""Workers of a run on the CPU, forked from a process that has imported the large libraries once.

A run has about eight processes that import torch, transformers, vLLM and verl one after the other, 10 to 20 seconds of
a core each: most of a start on two cores, and of its memory. `Forks` starts one process that imports them (`main`), and
gives Ray a command (``runtime_env.py_executable``) that asks it for a fork instead of starting Python anew. The worker's
own program, environment and files are what Ray wanted them to be. Not for GPUs: a process that has touched one cannot
be forked.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import re
import runpy
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from sdar_verl.compat.cpu.fork_client import MAX_FILES, REFUSED

# What the processes of a run import, but for Ray, which remembers the process that imported it, and for verl, which
# imports Ray.
MODULES = (
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.worker.cpu_model_runner",
    "torch.distributed.fsdp",
    "torch._inductor.compile_fx",
    "transformers.models.auto.modeling_auto",
    "transformers.models.qwen2.modeling_qwen2",
    "tensordict.tensorclass",
    "torchdata.stateful_dataloader",
    "peft",
    "accelerate",
    "datasets",
    "pandas",
    "scipy.stats",
    "hydra",
    "codetiming",
)
COMMAND = "SDAR_FORK_COMMAND"  # environment variable of the workers: `Forks.command`
# Read when a process starts or imports: a fork is no substitute for a process with other values of these.
DECIDED = (
    "PYTHONHASHSEED", "PYTHONPATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VERL_PLATFORM",
    "VERL_FULL_DETERMINISM", "VLLM_BATCH_INVARIANT",
)  # fmt: skip

_UNSET = "0"  # what verl passes on of a variable that nobody has set


class Forks:
    """A server of forks that lives as long as the context.

    Args:
        folder: where its socket and its log lie.
        environment: variables that the workers will have beside those of this process.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]):
        address, self._script = str(folder / "forks"), folder / "python"
        client = Path(__file__).with_name("fork_client.py")
        self._script.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-I", "-S", str(client), address])} "$@"\n')
        self._script.chmod(0o700)
        variables = {
            "OMP_NUM_THREADS": "1",  # Ray's own choice for workers of one CPU
            "VLLM_LOGGING_LEVEL": "WARN",  # verl's
            **os.environ,
            **environment,
            "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's allocator; a thread would not be forked
        }
        with (folder / "forks.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, address],
                stdin=subprocess.PIPE,  # closed when this process ends, however it ends
                stdout=log,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,
            )

    @property
    def command(self) -> str:
        """What to start instead of python; it starts python where the server is gone or does not fit."""
        return str(self._script)

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


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
        try:
            request = _read(connection)
        except (OSError, ValueError):
            connection.close()
            return None
        if why := self._unfit(request["environment"]):
            print(f"refused: {why}", flush=True)
        elif (process := os.fork()) == 0:
            self._leave(connection)
            return request
        process = REFUSED if why else process
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


def become(request: Mapping) -> None:
    """Turn this process into the one that was asked for, and run its program."""
    high = [_move_up(file) for file in request["received"]]
    for file, number in zip(high, request["files"], strict=True):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    os.setpriority(os.PRIO_PROCESS, 0, request["nice"])
    tempfile.tempdir = None
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if dynamo := sys.modules.get("torch._dynamo.config"):
        dynamo.disable = os.environ.get("TORCHDYNAMO_DISABLE") == "1"  # as that module does when it is imported
    run(request["arguments"])


def run(arguments: Sequence[str]) -> None:
    """What ``python <arguments>`` does, options before the program (``-u``, ``-X name``) left out."""
    arguments = list(arguments)
    while arguments[0].startswith("-") and arguments[0] not in ("-c", "-m"):
        arguments = arguments[2 if arguments[0] in ("-X", "-W") else 1 :]
    first, *rest = arguments
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), sys.modules["__main__"].__dict__)  # noqa: S102
    elif first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(first).resolve().parent)
        runpy.run_path(first, run_name="__main__")


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


def _move_up(file: int) -> int:
    """Out of the way of the numbers that files shall have."""
    import fcntl

    moved = fcntl.fcntl(file, fcntl.F_DUPFD, 512)
    os.close(file)
    return moved


def main(address: str) -> None:
    """Import, then fork for whoever asks at `address`, until standard input ends."""
    environment = dict(os.environ)  # imports change it
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)  # who asks before everything is imported waits
    for name in MODULES:
        importlib.import_module(name)
    if "ray" in sys.modules:
        raise RuntimeError("one of fork_server.MODULES imports Ray, which cannot be forked")
    gc.collect()
    gc.freeze()  # what is shared stays shared: the collector never writes to it again
    request = Server(listener, os.dup(0), environment).serve()
    if request is not None:
        become(request)


if __name__ == "__main__":
    main(sys.argv[1])
