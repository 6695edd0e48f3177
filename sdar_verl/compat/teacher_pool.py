"""Teacher servers that the run starts on its Ray cluster, watches and stops."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from sdar_verl.compat.parent import PARENT
from sdar_verl.compat.registration import on_cpu
from sdar_verl.errors import SdarError
from sdar_verl.forks.starter import COMMAND
from sdar_verl.preflight import require_resources
from sdar_verl.teacher_parts import ServerSettings

PASS_TOKENS = 2048
_STOP_SECONDS = 20
_PLACE_SECONDS = 60  # beside the start itself
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # its own cluster is not behind a proxy
_TAIL = 1500  # characters of a log that an error shows


class TeacherPool:
    """Servers of one model; their token is made up for this run and handed to their processes' environment alone."""

    def __init__(self, settings: ServerSettings, arguments: list[str], log_folder: Path):
        self.token = secrets.token_hex(32)
        gpus = 0 if on_cpu() else settings.tensor_parallel_size
        needed = {"CPU": settings.replicas} | ({"GPU": gpus * settings.replicas} if gpus else {})
        require_resources(needed, ray.available_resources())
        kind = ray.remote(TeacherServer).options(num_cpus=1, num_gpus=gpus, max_concurrency=2)
        self._servers = [
            kind.remote(
                arguments, self.token, str(log_folder / f"teacher-server-{number}.log"), settings.restarts,
                settings.start_timeout,
            )
            for number in range(settings.replicas)
        ]  # fmt: skip
        self._restarts = [0] * len(self._servers)
        try:
            starts = [server.start.remote() for server in self._servers]
            self.urls: list[str] = ray.get(starts, timeout=settings.start_timeout + _PLACE_SECONDS)
        except GetTimeoutError:
            raise SdarError(
                f"Ray found no place for {settings.replicas} teacher servers with {gpus} GPUs each on one machine in "
                f"{settings.start_timeout + _PLACE_SECONDS:g} s; add a machine, or lower replicas or "
                "tensor_parallel_size of sdar.teacher.server"
            ) from None

    def load(self, arguments: list[str]) -> None:
        """Let all servers start again with other `arguments`; returns at once, while they still load."""
        for server in self._servers:
            server.load.remote(arguments)  # one whose machine is gone stays gone

    def restarts(self) -> int:
        """How often servers were started again, in all; those whose machine is gone count as at the last look."""
        for number, server in enumerate(self._servers):
            with suppress(RayActorError):
                self._restarts[number] = ray.get(server.restarts.remote())
        return sum(self._restarts)

    def stop(self) -> None:
        """End the servers' processes."""
        for server in self._servers:
            with suppress(RayActorError):  # gone, and its process with it
                try:
                    ray.get(server.stop.remote(), timeout=3 * _STOP_SECONDS)
                except GetTimeoutError:
                    ray.kill(server)


class TeacherServer:
    """One server process and the thread that starts it again when it ends. A Ray actor, which holds its GPUs."""

    def __init__(self, arguments: list[str], token: str, log: str, restarts: int, start_timeout: float):
        self._arguments, self._log, self._allowed, self._timeout = arguments, Path(log), restarts, start_timeout
        self._address = ray.util.get_node_ip_address()
        self._port = _free_port(self._address)
        self._environment = {**os.environ, **_platform_variables(), "VLLM_API_KEY": token, "VLLM_NO_USAGE_STATS": "1"}
        self._python = os.environ.get(COMMAND, sys.executable)
        if COMMAND not in os.environ:  # a fork ends with its client, which looks after the parent itself
            self._environment[PARENT] = str(os.getpid())
        self._stopping, self._starts, self._loads = threading.Event(), 0, 0
        self._changing = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> str:
        """Start the process; returns its address once it answers. Raises `SdarError` with the end of its log."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        url, limit = f"http://{self._address}:{self._port}", time.monotonic() + self._timeout
        while not _answers(f"{url}/health"):
            if not self._thread.is_alive() or time.monotonic() > limit:
                why = "ended" if not self._thread.is_alive() else f"did not answer within {self._timeout:g} s"
                self.stop()
                raise SdarError(f"the teacher server {why}; the end of {self._log}:\n{self._tail()}")
            time.sleep(0.5)
        return url

    def restarts(self) -> int:
        """Starts after the first that nobody asked for."""
        return max(0, self._starts - 1 - self._loads)

    def load(self, arguments: list[str]) -> None:
        """End the process; the next one starts with `arguments`. One that has used up its restarts stays away."""
        with self._changing:
            self._arguments = arguments
            self._loads += 1
            self._end()

    def stop(self) -> None:
        """End the process, and wait for it."""
        self._stopping.set()
        self._end()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def _keep(self) -> None:
        """Runs as long as the server is wanted, whose process ends when the thread that started it does."""
        while not self._stopping.is_set() and self._starts <= self._allowed + self._loads:
            with self._changing, self._log.open("ab") as output:
                command = [
                    self._python, "-m", "sdar_verl.compat.vllm_server", *self._arguments,
                    "--host", self._address, "--port", str(self._port),
                ]  # fmt: skip
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=self._environment
                )
                self._starts += 1
            if self._stopping.is_set():  # asked for between the two
                self._process.terminate()
            self._process.wait()

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-_TAIL:] if self._log.exists() else "(nothing)"


def server_arguments(
    model: str, name: str, tokenizer: str, rollout: Any, settings: ServerSettings, *, least: int, trust: bool
) -> list[str]:
    """What ``vllm serve`` is told: the model in the rollout's own type, for requests of `least` tokens.

    Args:
        model: folder or hub's name; `name`: under which it is served.
        tokenizer: folder or hub's name of its tokenizer.
        rollout: the ``actor_rollout_ref.rollout`` part of the configuration.
    """
    found = [model, "--served-model-name", name, "--tokenizer", tokenizer]
    found += ["--dtype", str(rollout["dtype"]), "--max-model-len", str(least)]
    if trust:
        found.append("--trust-remote-code")
    if on_cpu():
        cache = rollout["engine_kwargs"]["vllm"]["kv_cache_memory_bytes"]
        return [*found, "--enforce-eager", "--kv-cache-memory-bytes", str(cache)]
    return [
        *found,
        *("--tensor-parallel-size", str(settings.tensor_parallel_size)),
        *("--gpu-memory-utilization", str(settings.gpu_memory_utilization)),
        # a prompt's log-probabilities need the logits of every token of a pass, which its memory profile leaves out
        *("--max-num-batched-tokens", str(PASS_TOKENS)),
    ]


def _platform_variables() -> dict[str, str]:
    if not on_cpu():
        return {}
    from sdar_verl.compat.cpu.platform import CpuPlatform

    return CpuPlatform().rollout_env_vars()


def _free_port(address: str) -> int:
    with socket.socket() as found:
        found.bind((address, 0))
        return found.getsockname()[1]


def _answers(url: str) -> bool:
    try:
        with _open(url, timeout=5) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError, ValueError):
        return False
