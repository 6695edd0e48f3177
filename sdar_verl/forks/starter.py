"""Starts the server of forks, and has processes started there: this one, or what ``multiprocessing`` spawns."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

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


class Forks:
    """A server of forks, which lives until `stop`, or until this process ends.

    Args:
        folder: its own, for socket and log; removed by the server at its end.
        environment: variables that the workers will have beside those of this process.
        modules: what is imported before anything is forked.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], modules: Sequence[str] = MODULES):
        address, self._script = str(folder / "forks"), folder / "python"
        client = Path(__file__).with_name("client.py")
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
                [sys.executable, "-m", "sdar_verl.forks.server", str(listener.fileno()), str(folder), *modules],
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
