"""Real service processes for tests, and a wire between client and service that can be cut."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

from sdar_envs import registry
from sdar_envs.base import TaskRef

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))
registry.register("toy", "toy_env_family")
TOKEN = "only-for-these-tests-0123456789"


def task(name: str = "1") -> TaskRef:
    """One of the toy family's four tasks, ``0`` to ``3``."""
    return TaskRef(name, "toy", "train")


class ServiceProcess:
    """``sdar-env serve`` on a free port of this machine; use it with ``with``."""

    def __init__(self, *arguments: str, env: str = "toy", token: str | None = None, port: int = 0) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "SDAR_ENV_TOKEN"}
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE), *sys.path])
        if token is not None:
            environment["SDAR_ENV_TOKEN"] = token
        command = [sys.executable, "-m", "sdar_envs.service.cli", "serve", env, "--port", str(port)]
        self.process = subprocess.Popen(
            [*command, "--module", "toy=toy_env_family", "--log-level", "debug", *arguments],
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self.lines: list[dict] = []
        self.noise: list[str] = []
        self._new: queue.Queue[dict | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.port = self.wait_for("serving")["port"]
        except BaseException:
            self.end()
            raise
        self.url = f"ws://127.0.0.1:{self.port}"

    def _read(self) -> None:
        for line in self.process.stderr:
            if not line.startswith("{"):
                self.noise.append(line)  # what an environment printed, or why it cannot start
                continue
            entry = json.loads(line)
            self.lines.append(entry)
            self._new.put(entry)
        self._new.put(None)

    def wait_for(self, event: str, seconds: float = 60) -> dict:
        """The next log line with that event."""
        while True:
            entry = self._new.get(timeout=seconds)
            assert entry is not None, f"the service ended before {event!r}: {self.lines} {self.noise}"
            if entry["event"] == event:
                return entry

    def get(self, path: str, token: str | None = None) -> tuple[int, str]:
        """Status and body of an HTTP request."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str, token: str | None = None) -> float:
        """The sum of a metric over its labels; `name` may hold one, as in ``calls{op="reset"}``."""
        wanted = (name,) if "{" in name else (name + " ", name + "{")
        lines = self.get("/metrics", token)[1].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(wanted))

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Kill it if it still runs; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        status = self.process.wait()
        self._reader.join(10)
        self.process.stderr.close()
        return status

    def __enter__(self) -> ServiceProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Wire:
    """Carries bytes between a client and a service, and breaks when it is told to; use it with ``async with``.

    Attributes:
        cut_requests: numbers of chunks from the client that are lost together with their connection.
        cut_answers: numbers of chunks from the service that are lost together with their connection.
        shut: refuses new connections.
        silent: takes new connections and carries nothing.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.cut_requests: set[int] = set()
        self.cut_answers: set[int] = set()
        self.shut = self.silent = False
        self.connections = 0
        self._counts = {"request": 0, "answer": 0}
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.sleep(0.05)

    def cut(self) -> None:
        """Break all connections now."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.shut:
            writer.transport.abort()
            return
        self.connections += 1
        if self.silent:
            self._writers.add(writer)
            await reader.read(-1)
            return writer.close()
        try:
            out_reader, out_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, out_writer}
        self._writers |= pair
        await asyncio.gather(
            self._carry(reader, out_writer, "request", self.cut_requests, pair),
            self._carry(out_reader, writer, "answer", self.cut_answers, pair),
        )
        self._writers -= pair

    async def _carry(self, reader, writer, kind: str, cuts: set[int], pair: set) -> None:
        try:
            while data := await reader.read(65536):
                number = self._counts[kind]
                self._counts[kind] += 1
                if number in cuts:
                    break
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        for end in pair:
            end.transport.abort()
