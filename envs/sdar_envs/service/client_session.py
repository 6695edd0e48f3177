"""One episode at a service, seen from whoever plays it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

from sdar_envs.base import EnvError, StepInfo, TaskRef
from sdar_envs.pool_session import EpisodeFailed
from sdar_envs.service.protocol import Refusal

if TYPE_CHECKING:
    from sdar_envs.service.client import RemoteEnvPool
    from sdar_envs.service.endpoint import Endpoint


class RemoteSession:
    """One episode at a time at some service; made by `RemoteEnvPool.session`, used like `EnvSession`."""

    def __init__(self, pool: RemoteEnvPool) -> None:
        self._pool = pool
        self._endpoint: Endpoint | None = None
        self._id, self._seq = "", 0
        self._call: asyncio.Task | None = None
        self._failed = ""

    async def reset(self, task: TaskRef, seed: int | None = None) -> tuple[str, StepInfo]:
        """Begin an episode; a session whose episode failed may begin another one. Raises `EpisodeFailed`."""
        self.leave()
        self._failed, self._seq = "", 0
        self._pool.count("episodes")
        try:
            self._endpoint, self._id, (observation, info) = await self._pool.begin(task, seed)
        except EpisodeFailed as error:
            self._fail(str(error))
        return observation, info

    async def step(self, action: str) -> tuple[str, float, bool, bool, StepInfo]:
        """Play one action; raises `EpisodeFailed` (again and again, until the next `reset`)."""
        if self._call is not None and not self._call.done():  # a caller was cancelled: its step is played to the end
            await asyncio.wait({self._call})
        if self._failed:
            raise EpisodeFailed(self._failed)
        if self._endpoint is None:
            raise EnvError("call reset before step")
        if self._call is not None and not self._call.cancelled() and self._call.exception() is not None:
            self._fail(str(self._call.exception()))
        try:
            size, most = len(action.encode()), self._endpoint.hello["max_action_bytes"]
        except UnicodeEncodeError as error:
            self._fail(f"the action is no text that can be sent: {error}")
        if size > most:
            self._fail(f"an action of {size} bytes; the service takes at most {most} (--max-action-bytes)")
        self._seq += 1
        message = {"op": "step", "session": self._id, "seq": self._seq, "action": action}
        self._call = asyncio.ensure_future(self._endpoint.call(message, self._pool.patience.reconnect))
        try:
            observation, reward, terminated, truncated, info = await asyncio.shield(self._call)
        except EnvError as error:
            self._fail(f"the environment service at {self._endpoint.url} was lost: {error}")
        except Refusal as refusal:
            self._fail(str(refusal))
        return observation, reward, terminated, truncated, info

    def leave(self) -> None:
        """End the episode, if one is open; the service is told in the background."""
        endpoint, call = self._endpoint, self._call
        self._endpoint = self._call = None
        if endpoint is None:
            return
        if call is not None and not call.done():
            call.cancel()
        endpoint.active -= 1
        endpoint.sessions.discard(self._id)
        self._pool.in_background(endpoint.end(self._id))

    async def __aenter__(self) -> RemoteSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def _fail(self, reason: str) -> NoReturn:
        self._failed = reason
        self._pool.count("failures")
        raise EpisodeFailed(reason)
