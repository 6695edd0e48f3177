"""The parent's side of one environment worker: start it, call it with a deadline, end it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from sdar_envs.base import EnvError, EnvUnreachable

_LINE_LIMIT = 64 * 2**20  # bytes of one answer


class WorkerLost(EnvError):
    """The worker crashed or did not answer in time; it has been killed.

    Attributes:
        began: whether the call that raised this may have reached the environment.
    """

    def __init__(self, reason: str, began: bool) -> None:
        super().__init__(reason)
        self.began = began


class WorkerProcess:
    """One running worker. `call` serves one caller at a time; its deadline starts when its turn comes."""

    def __init__(
        self, process: subprocess.Popen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, envs: int
    ) -> None:
        self.process = process
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()
        self.lost = ""  # why, once it is lost
        self.free = list(range(envs))  # environments that no session holds
        self.recent: list[str] = []  # ids of tasks played here, oldest first

    @classmethod
    async def start(
        cls, module: str, config: Mapping[str, Any], envs: int, timeout: float, registered: set[WorkerProcess]
    ) -> WorkerProcess:
        """Start a worker and wait until its first environment is made.

        `EnvError` says why it could not be, `EnvUnreachable` where it may be later. The worker stands in `registered`
        from the moment it exists, so that whoever ends everything finds it.
        """
        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "sdar_envs.pool_worker", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": _import_path(), "OMP_NUM_THREADS": "1"},
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = None
        try:
            reader, writer = await asyncio.open_connection(sock=ours, limit=_LINE_LIMIT)
            worker = cls(process, reader, writer, envs)
            registered.add(worker)
            answer = await worker.call({"module": module, "config": dict(config), "envs": envs}, timeout)
            if "failed" in answer:
                kind = EnvUnreachable if answer["unreachable"] else EnvError
                raise kind(f"an environment worker cannot start: {answer['failed']}")
        except BaseException:
            process.kill()
            process.wait()
            if worker is not None:
                worker.kill()
                registered.discard(worker)
            raise
        return worker

    async def call(self, message: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Send one message and wait for its answer; `WorkerLost` when none comes within `timeout` seconds."""
        line = json.dumps(message).encode() + b"\n"
        async with self._turn:
            if self.lost:
                raise WorkerLost(self.lost, began=False)
            try:
                self._writer.write(line)
                answer = await asyncio.wait_for(self._reader.readline(), timeout)
            except asyncio.TimeoutError:
                self._lose(f"no answer to {message.get('op', 'start')!r} within {timeout:g} s")
            except asyncio.CancelledError:
                self._lose("a call was cancelled")  # its answer would be taken for the next one's
                raise
            except OSError as error:
                self._lose(f"it crashed: {error}")
            except ValueError as error:  # the line is longer than the limit
                self._lose(f"its answer cannot be read: {error}")
            else:
                if answer.endswith(b"\n"):
                    return json.loads(answer)
                self._lose("it crashed")
            raise WorkerLost(self.lost, began=True)

    @property
    def alive(self) -> bool:
        return not self.lost and self.process.poll() is None

    async def close(self, grace: float) -> None:
        """Ask the worker to end; kill it after `grace` seconds."""
        try:
            await asyncio.wait_for(self.call({"op": "close"}, grace), grace)
            await asyncio.to_thread(self.process.wait, grace)
        except (WorkerLost, asyncio.TimeoutError, subprocess.TimeoutExpired):
            pass  # killed below
        self.kill()

    def kill(self) -> None:
        """End the process now and collect it; safe to call twice and without an event loop."""
        self.lost = self.lost or "it was stopped"
        self.process.kill()
        self.process.wait()
        try:
            self._writer.close()
        except RuntimeError:  # the event loop is closed already, and the socket with it
            pass

    def _lose(self, reason: str) -> None:
        self.lost = reason
        self.kill()
        self.lost = f"{reason} (exit code {self.process.returncode})"


def _import_path() -> str:
    """The parent's import path, so that the worker finds the same modules."""
    return os.pathsep.join(os.path.abspath(entry or os.getcwd()) for entry in sys.path)
