"""One place in the environment pool, seen from the episode that plays there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from sdar_envs.base import EnvError, StepInfo, TaskRef

if TYPE_CHECKING:
    from sdar_envs.pool import EnvPool
    from sdar_envs.pool_process import WorkerProcess


class EpisodeFailed(EnvError):
    """This episode cannot go on (worker lost, deadline passed, or its environment raised); others are not affected.

    Attributes:
        began: False when the failed call never reached the environment.
    """

    def __init__(self, reason: str, began: bool = True) -> None:
        super().__init__(reason)
        self.began = began


class EnvSession:
    """One episode at a time in some worker; made by `EnvPool.session`."""

    def __init__(self, pool: EnvPool) -> None:
        self._pool = pool
        self._worker: WorkerProcess | None = None
        self._place = -1
        self._call: asyncio.Task | None = None
        self._deadline = 0.0
        self._failed = ""

    async def reset(self, task: TaskRef, seed: int | None = None) -> tuple[str, StepInfo]:
        """Begin an episode; a session whose episode failed may begin another one. Raises `EpisodeFailed`."""
        self.leave()
        self._failed = ""
        self._pool.count("episodes")
        while True:
            self._worker, self._place = await self._pool.acquire(task.id)
            self._deadline = time.monotonic() + self._pool.episode_timeout
            message = {"op": "reset", "env": self._place, "task": asdict(task), "seed": seed}
            try:
                observation, info = await self._serve(message, self._pool.reset_timeout)
                return observation, info
            except EpisodeFailed as error:
                if error.began:
                    self._fail(str(error))
                self.leave()  # another episode took the worker down before this one began: start elsewhere

    async def step(self, action: str) -> tuple[str, float, bool, bool, StepInfo]:
        """Play one action; raises `EpisodeFailed` (again and again, until the next `reset`)."""
        if self._failed:
            raise EpisodeFailed(self._failed)
        if self._worker is None:
            raise EnvError("call reset before step")
        if time.monotonic() > self._deadline:
            self._fail(f"the episode took longer than {self._pool.episode_timeout:g} s")
        message = {"op": "step", "env": self._place, "action": action}
        try:
            answer = await self._serve(message, self._pool.step_timeout)
        except EpisodeFailed as error:
            self._fail(str(error))
        observation, reward, terminated, truncated, info = answer
        return observation, reward, terminated, truncated, info

    async def __aenter__(self) -> EnvSession:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    async def _serve(self, message: Mapping[str, Any], timeout: float) -> Any:
        """One call that finishes even if its caller is cancelled: the worker answers in order."""
        assert self._worker is not None
        self._call = asyncio.ensure_future(self._pool.call(self._worker, message, timeout))
        return await asyncio.shield(self._call)

    def _fail(self, reason: str) -> NoReturn:
        self._failed = reason
        self._pool.count("failures")
        raise EpisodeFailed(reason)

    def leave(self) -> None:
        """Give the place back, at once or when the call that a cancelled caller left behind has ended; safe twice."""
        worker, place, call = self._worker, self._place, self._call
        self._worker = self._call = None
        if worker is None:
            return
        if call is None or call.done():
            self._pool.release(worker, place)
            return

        def ended(call: asyncio.Task) -> None:
            if not call.cancelled():
                call.exception()  # seen: nobody waits for this call any more
            self._pool.release(worker, place)

        call.add_done_callback(ended)
