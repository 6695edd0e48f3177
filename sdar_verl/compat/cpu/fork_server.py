"""The processes of a run on the CPU, forked from one that has imported the large libraries.

A run has about nine processes that import torch, transformers, vLLM and verl one after the other, 10 to 20 seconds of a
core each: most of a start on two cores, and of its memory. Here one process imports them (`main`) and forks: the driver
(`become_forked`), Ray's workers (``runtime_env.py_executable``) and vLLM's engine. Program, environment and files of a
fork are what they would be in a process of its own; where they cannot be, it gets one. Not for GPUs: a process that has
touched one cannot be forked.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import json
import multiprocessing
import os
import random
import re
import runpy
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from sdar_verl.compat.cpu.fork_client import MAX_FILES, PASSED_ON, REFUSED

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
COMMAND = "SDAR_FORK_COMMAND"  # environment variable of all forks: `Forks.command`
PREFIX = "sdar-"  # of folders in the place for temporary files; the id of the process that owns it follows
# Read when a process starts or imports: a fork is no substitute for a process with other values of these.
DECIDED = (
    "PYTHONHASHSEED", "PYTHONPATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VERL_PLATFORM",
    "VERL_FULL_DETERMINISM", "VLLM_BATCH_INVARIANT",
)  # fmt: skip

_PATIENCE = 10.0  # seconds for a client to say what it wants
_UNSET = "0"  # what verl passes on of a variable that nobody has set


class Forks:
    """A server of forks, which lives until `stop`, or until this process ends.

    Args:
        folder: its own, for socket and log; removed by the server at its end.
        environment: variables that the workers will have beside those of this process.
        modules: what is imported before anything is forked.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], modules: Sequence[str] = MODULES):
        address, self._script = str(folder / "forks"), folder / "python"
        client = Path(__file__).with_name("fork_client.py")
        folder.mkdir(exist_ok=True)
        start = shlex.join([sys.executable, "-I", "-S", str(client), address])
        self._script.write_text(f'#!/bin/sh\nexec {start} "$@"\n')
        self._script.chmod(0o700)
        variables = {
            "OMP_NUM_THREADS": "1",  # Ray's own choice for workers of one CPU
            "VLLM_LOGGING_LEVEL": "WARN",  # verl's
            **os.environ,
            **environment,
            "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's allocator; a thread would not be forked
        }
        with (folder / "forks.log").open("wb") as log, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen(64)  # who asks before everything is imported waits
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(listener.fileno()), str(folder), *modules],
                stdin=subprocess.PIPE,  # closed when this process ends, however it ends
                stdout=log,
                stderr=subprocess.STDOUT,
                env=variables,
                pass_fds=[listener.fileno()],
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

    def stop(self) -> None:
        """End the server and everything that it forked."""
        self._process.stdin.close()
        self._process.wait()

    def keep_after_exec(self) -> None:
        """Let the server live for as long as this process does, whatever it becomes."""
        os.set_inheritable(self._process.stdin.fileno(), True)


def become_forked(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by ``python <arguments>``, run in a fork; `COMMAND` tells it how to start others there."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    forks = Forks(Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")), {})
    forks.keep_after_exec()
    os.environ[COMMAND] = forks.command
    os.execv(forks.command, [forks.command, *arguments])


def spawn_there() -> None:
    """Let ``multiprocessing`` spawn in forks, where this process is one itself."""
    if command := os.environ.get(COMMAND):
        multiprocessing.set_executable(command)


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
        process, why = REFUSED, self._unfit(request["environment"])
        try:
            if not why and (process := os.fork()) == 0:
                self._leave(connection)
                return request
        except OSError as error:  # no memory, or too many processes
            why = str(error)
        if why:
            print(f"refused: {why}", flush=True)
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
    free = max([64, *request["files"]]) + 1
    high = [_move_up(file, free) for file in request["received"]]
    for file, number in zip(high, request["files"], strict=True):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    with suppress(PermissionError):  # the server is nicer than who asks
        os.setpriority(os.PRIO_PROCESS, 0, request["nice"])
    tempfile.tempdir = None
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if dynamo := sys.modules.get("torch._dynamo.config"):
        dynamo.disable = os.environ.get("TORCHDYNAMO_DISABLE") == "1"  # as that module does when it is imported
    for number in PASSED_ON:
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else usual)
    _end(_code_of(request["arguments"]))


def _code_of(arguments: Sequence[str]) -> int:
    """The exit code of the program, after it ran; what it raised is printed as python does."""
    try:
        run(arguments)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> NoReturn:
    """End as python does, but for taking every module apart: seconds here, for thousands that go with the process."""
    threading._shutdown()  # waits for threads, and ends executors
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or nobody reads it any more
            stream.flush()
    os._exit(code & 0xFF)


def run(arguments: Sequence[str]) -> None:
    """What ``python <arguments>`` does, options before the program (``-u``, ``-X name``) left out."""
    arguments = list(arguments)
    while arguments[0].startswith("-") and arguments[0] not in ("-c", "-m"):
        arguments = arguments[2 if arguments[0] in ("-X", "-W") else 1 :]
    first, *rest = arguments
    if first == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), sys.modules["__main__"].__dict__)
    elif first == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
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


def _move_up(file: int, least: int) -> int:
    """Out of the way of the numbers that files shall have."""
    moved = fcntl.fcntl(file, fcntl.F_DUPFD, least)
    os.close(file)
    return moved


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
