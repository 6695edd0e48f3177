"""Environment services as a pool: what `sdar_envs.pool.EnvPool` is in one process, over the network.

The same calls, the same errors. An endpoint that is lost fails the episodes it had in play, with `EpisodeFailed`; new
ones begin at the others.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from sdar_envs import registry
from sdar_envs.base import EnvError, EnvUnreachable, NoPlace, TaskRef
from sdar_envs.pool_session import EpisodeFailed
from sdar_envs.service import protocol as p
from sdar_envs.service.client_session import RemoteSession
from sdar_envs.service.endpoint import Endpoint, Patience
from sdar_envs.service.link import LinkLost
from sdar_envs.service.protocol import Refusal

__all__ = ["NoEndpoint", "Patience", "RemoteEnvPool", "RemoteSession"]

_ELSEWHERE = (p.BUSY, p.UNAVAILABLE)
_RESUME_RESET = 2.0  # seconds to wait for a broken connection before an episode begins elsewhere
_CLOSE_GRACE = 5.0  # seconds for good-byes


class NoEndpoint(NoPlace):
    """No service answers any more. Not an `EnvError`: every further episode would fail, so the run has to stop."""


class RemoteEnvPool:
    """Sessions at one or several services, used from one event loop.

    ::

        async with RemoteEnvPool("alfworld", config, ["ws://10.0.0.5:8400"], token) as pool, pool.session() as session:
            observation, info = await session.reset(task)

    Episodes of one task prefer the endpoint that has it loaded, if it has a free place; otherwise the one with the
    smallest share of its places in use. When all are full, `reset` waits.

    Args:
        family: name of a registered environment family.
        config: this run's configuration of it; the services' must agree, see `EnvFamily.own_keys`.
        endpoints: ``ws://host:port`` or ``wss://host[:port]``, one for each service process.
        token: what the services want, see `sdar_envs.service.auth.read_token`.
        patience: with their connections.
    """

    def __init__(
        self,
        family: str,
        config: Mapping[str, Any],
        endpoints: Sequence[str],
        token: str | None = None,
        patience: Patience | None = None,
    ) -> None:
        if not endpoints or len(set(endpoints)) != len(endpoints):
            raise EnvError("endpoints must name at least one environment service, and each only once")
        known = registry.get(family)
        shared = {key: value for key, value in known.settings(config).items() if key not in known.own_keys}
        try:
            shared = json.loads(json.dumps(shared))  # as it comes back from a service
        except TypeError as error:
            raise EnvError(f"the environment's configuration must hold plain values only: {error}") from error
        self.patience = patience or Patience()
        self._endpoints = [Endpoint(url, token, {"env": family, "config": shared}, self.patience) for url in endpoints]
        self._background: set[asyncio.Task] = set()
        self._closed = False
        self._counts = {"episodes": 0, "failures": 0}

    async def start(self) -> None:
        """Connect to every endpoint; names the first that does not answer in time (`EnvUnreachable`) or cannot be used
        (`EnvError`)."""
        self._check_open()
        end = time.monotonic() + self.patience.reconnect
        await asyncio.gather(*(self._start_one(endpoint, end) for endpoint in self._endpoints))

    async def check_tasks(self, split: str, tasks: Sequence[TaskRef]) -> None:
        """`EnvError` unless every endpoint has the same tasks by id and type; their content is not compared."""
        ours = p.task_digest(tasks)
        for endpoint in self._endpoints:
            try:
                theirs = await endpoint.call({"op": "tasks", "split": split}, self.patience.reconnect)
            except Refusal as refusal:
                raise EnvError(f"the service at {endpoint.url}: {refusal}") from refusal
            if theirs != ours:
                raise EnvError(
                    f"the service at {endpoint.url} has other tasks in split {split!r}: {theirs.get('count')} there, "
                    f"{ours['count']} here; give it the same data, and the same choice of tasks (task_types, sources)"
                )

    def session(self) -> RemoteSession:
        """A place for one episode after another; use it with ``async with``."""
        return RemoteSession(self)

    def stats(self) -> dict[str, int]:
        """As of `EnvPool`: ``workers`` are the endpoints connected now, ``restarts`` the connections made again."""
        return {
            **self._counts,
            "restarts": sum(max(0, endpoint.connections - 1) for endpoint in self._endpoints),
            "workers": sum(endpoint.connected for endpoint in self._endpoints),
            "busy": sum(endpoint.active for endpoint in self._endpoints),
        }

    async def close(self) -> None:
        """End all sessions and connections; safe to call twice."""
        self._closed = True
        if self._background:
            _, late = await asyncio.wait(set(self._background), timeout=_CLOSE_GRACE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints))

    async def __aenter__(self) -> RemoteEnvPool:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def begin(self, task: TaskRef, seed: int | None) -> tuple[Endpoint, str, Any]:
        """Open a session wherever there is room: its endpoint, its id and its first answer. Used by sessions.

        Raises:
            EpisodeFailed: the environment failed in its reset.
            EnvError: a service cannot be used by this run, or does not have the task.
            NoEndpoint: none has answered for as long as `patience` allows.
        """
        last_answer = time.monotonic()
        while True:
            self._check_open()
            endpoint = self._choose(task.id)
            if endpoint is not None and endpoint.full and any(other.probed for other in self._endpoints):
                # it may wait there for minutes, while another one that is just coming back has room
                endpoint, last_answer = None, time.monotonic()
            if endpoint is None:
                if time.monotonic() - last_answer > self.patience.reconnect:
                    reasons = "; ".join(f"{e.url}: {e.why_down}" for e in self._endpoints)
                    raise NoEndpoint(f"no environment service takes episodes any more: {reasons}")
                await asyncio.sleep(random.uniform(0.05, 0.2))
                continue
            session = secrets.token_hex(16)
            message = {"op": "reset", "session": session, "split": task.split, "task": task.id, "seed": seed}
            begun, reached, asked = False, endpoint.connected, time.monotonic()
            endpoint.active += 1
            try:
                answer = await endpoint.call(message, _RESUME_RESET if reached else 0.0)
                begun = True
                endpoint.note(task.id)
                endpoint.sessions.add(session)
                return endpoint, session, answer
            except EnvError as error:  # nobody has seen anything of the episode: begin it elsewhere
                endpoint.take_down(str(error))
                if reached:  # the session may be there all the same
                    endpoint.ended.add(session)
                    last_answer += time.monotonic() - asked  # it lived while we waited there
            except Refusal as refusal:
                if refusal.kind not in _ELSEWHERE:
                    raise (EpisodeFailed if refusal.kind == p.FAILED else EnvError)(str(refusal)) from refusal
                endpoint.take_down(str(refusal))
                # a busy one lives, and a place will come; another kind lived as long as it let us wait
                last_answer = time.monotonic() if refusal.kind == p.BUSY else last_answer + time.monotonic() - asked
            except asyncio.CancelledError:
                self.in_background(endpoint.end(session))
                raise
            finally:
                endpoint.active -= not begun

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def count(self, what: str) -> None:
        self._counts[what] += 1

    def _choose(self, task_id: str) -> Endpoint | None:
        up = [endpoint for endpoint in self._endpoints if endpoint.can_be_tried()]
        return min(up, key=lambda e: (e.full or not e.knows(task_id), e.active / e.places), default=None)

    def _check_open(self) -> None:
        if self._closed:
            raise EnvError("the pool of environment services is closed")

    async def _start_one(self, endpoint: Endpoint, end: float) -> None:
        while True:
            try:
                await endpoint.connect()
                return
            except LinkLost as error:
                if time.monotonic() >= end:
                    raise EnvUnreachable(
                        f"{error}. Start the service (sdar-env serve), or correct env.service.endpoints"
                    ) from error
            await asyncio.sleep(0.3)
