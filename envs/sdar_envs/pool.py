"""A pool of environment worker processes for asyncio: deadlines, replacement of lost workers, no leftovers.

Engines are not thread-safe and can crash or hang, so they run in processes of their own. Each worker serves several
episodes, one call at a time. When a worker crashes or misses a deadline it is killed and replaced; the episodes it
held raise `EpisodeFailed` at their next call, all others go on. When none is left and none can be started, beginning an
episode raises `NoPlace`.
"""

from __future__ import annotations

import asyncio
import json
import os
import weakref
from collections.abc import Coroutine, Mapping
from typing import Any

from sdar_envs import registry
from sdar_envs.base import EnvError, NoPlace
from sdar_envs.pool_process import WorkerLost, WorkerProcess
from sdar_envs.pool_session import EnvSession, EpisodeFailed

__all__ = ["EnvPool", "EnvSession", "EpisodeFailed"]

_RECENT_TASKS = 128  # how many tasks a worker is expected to keep loaded
_START_ATTEMPTS = 5  # in a row without any worker; while one is left there is no end to them
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds between two attempts
_CLOSE_GRACE = 5.0  # seconds


class EnvPool:
    """``workers`` processes with up to ``envs_per_worker`` episodes each, used from one event loop.

    ::

        async with EnvPool("alfworld", config, workers=4) as pool, pool.session() as session:
            observation, info = await session.reset(task, seed=0)
            observation, reward, terminated, truncated, info = await session.step("look")

    Episodes of one task prefer the worker that has it loaded; otherwise the least busy worker is taken. `reset` waits
    while all places are taken.

    Args:
        family: name of a registered environment family.
        config: its configuration, plain values only (it is sent as JSON).
        workers: number of processes.
        envs_per_worker: episodes that one process holds at once.
        step_timeout: seconds one `step` may take in its worker.
        reset_timeout: seconds one `reset` may take in its worker, loading included.
        episode_timeout: seconds from an episode's `reset` to its last `step`, the caller's time included.
        start_timeout: seconds a worker may take to start.

    Attributes:
        places: episodes that can be in play at once.
    """

    def __init__(
        self,
        family: str,
        config: Mapping[str, Any],
        workers: int = 2,
        envs_per_worker: int = 8,
        step_timeout: float = 30.0,
        reset_timeout: float = 120.0,
        episode_timeout: float = 3600.0,
        start_timeout: float = 120.0,
    ) -> None:
        if workers < 1 or envs_per_worker < 1:
            raise EnvError(f"workers and envs_per_worker must be at least 1, got {workers} and {envs_per_worker}")
        if min(step_timeout, reset_timeout, episode_timeout, start_timeout) <= 0:
            raise EnvError("all timeouts of the environment pool must be positive")
        try:
            json.dumps(dict(config))
        except TypeError as error:
            raise EnvError(f"the environment's configuration must hold plain values only: {error}") from error
        self._module = registry.module_of(family)
        self._config = dict(config)
        self._size = workers
        self._envs = envs_per_worker
        self.places = workers * envs_per_worker
        self.step_timeout = step_timeout
        self.reset_timeout = reset_timeout
        self.episode_timeout = episode_timeout
        self._start_timeout = start_timeout
        self._workers: list[WorkerProcess] = []
        self._everyone: set[WorkerProcess] = set()  # also those being replaced
        self._changed = asyncio.Condition()
        self._background: set[asyncio.Task] = set()
        self._state = "new"
        self._why_broken = ""
        self._counts = {"episodes": 0, "failures": 0, "restarts": 0}
        self._finalizer = weakref.finalize(self, _kill_all, self._everyone, os.getpid())

    async def start(self) -> None:
        """Start all workers; `EnvError` if one cannot start, with its reason. Calling it again does nothing."""
        if self._state != "new":
            return
        self._state = "running"
        results = await asyncio.gather(*(self._start_one() for _ in range(self._size)), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                self._why_broken = str(result)
                self.kill()
                await self._tell()
                raise result

    def session(self) -> EnvSession:
        """A place for one episode after another; use it with ``async with``."""
        return EnvSession(self)

    def stats(self) -> dict[str, int]:
        """Counts since the start: ``episodes`` begun, ``failures`` of episodes, ``restarts`` of workers; and
        ``workers`` running now, ``busy`` places now."""
        busy = sum(self._envs - len(worker.free) for worker in self._workers)
        return {**self._counts, "workers": len(self._workers), "busy": busy}

    @property
    def broken(self) -> str:
        """Why no worker can be started, so that no episode can begin any more; empty while all is well."""
        return self._why_broken

    async def close(self) -> None:
        """End all workers and wait for them; safe to call twice."""
        if self._state == "closed":
            return
        self._state = "closed"
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        workers, self._workers = self._workers, []
        await asyncio.gather(*(worker.close(_CLOSE_GRACE) for worker in workers))
        self.kill()
        await self._tell()

    def kill(self) -> None:
        """End all workers at once; needs no event loop and is safe to call twice."""
        self._state = "closed"
        self._workers = []
        self._finalizer()

    async def __aenter__(self) -> EnvPool:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def acquire(self, task_id: str) -> tuple[WorkerProcess, int]:
        """A live worker and a free place in it, the one that knows `task_id` if it has room. Used by sessions.

        Raises:
            NoPlace: there is no worker, and none can be started.
        """
        try:
            await self.start()
        except EnvError as error:
            raise NoPlace(str(error)) from error
        async with self._changed:
            while True:
                self._check_open()
                for worker in [worker for worker in self._workers if not worker.alive]:
                    self._replace(worker)
                open_workers = [worker for worker in self._workers if worker.free]
                if open_workers:
                    break
                await self._changed.wait()
            worker = min(open_workers, key=lambda w: (task_id not in w.recent, -len(w.free)))
            worker.recent = [*(known for known in worker.recent if known != task_id), task_id][-_RECENT_TASKS:]
            return worker, worker.free.pop(0)

    def release(self, worker: WorkerProcess, place: int) -> None:
        """Give a place back. Used by sessions."""
        worker.free.append(place)
        worker.free.sort()
        self._in_background(self._tell())

    async def call(self, worker: WorkerProcess, message: Mapping[str, Any], timeout: float) -> Any:
        """One call to a worker; a lost worker is replaced. Used by sessions."""
        try:
            answer = await worker.call(message, timeout)
        except WorkerLost as error:
            self._replace(worker)
            raise EpisodeFailed(f"the episode's worker was lost: {error}", error.began) from error
        if "failed" in answer:
            raise EpisodeFailed(f"the environment raised {answer['failed']}")
        return answer["ok"]

    def count(self, what: str) -> None:
        self._counts[what] += 1

    def _check_open(self) -> None:
        if self._why_broken:
            raise NoPlace(f"no environment worker can be started: {self._why_broken}")
        if self._state == "closed":
            raise NoPlace("the environment pool is closed")

    def _replace(self, worker: WorkerProcess) -> None:
        """Forget a lost worker and start another one in the background."""
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        self._everyone.discard(worker)
        worker.kill()
        self.count("restarts")
        self._in_background(self._restart())

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _restart(self) -> None:
        alone, pause = 0, _FIRST_PAUSE
        while self._state == "running" and not self._why_broken:
            try:
                return await self._start_one()
            except (EnvError, OSError) as error:
                alone = 0 if self._workers else alone + 1
                if alone == _START_ATTEMPTS:
                    self._why_broken = str(error)
                    break
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        await self._tell()

    async def _start_one(self) -> None:
        worker = await WorkerProcess.start(self._module, self._config, self._envs, self._start_timeout, self._everyone)
        if self._state == "closed":
            worker.kill()
            raise EnvError("the environment pool is closed")
        self._workers.append(worker)
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _kill_all(workers: set[WorkerProcess], owner: int) -> None:
    if os.getpid() != owner:  # a fork of the owner must not end the owner's workers
        return
    while workers:
        workers.pop().kill()
