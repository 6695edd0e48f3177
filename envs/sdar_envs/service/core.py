"""What a service does with requests, whatever brings them: sessions, limits, draining."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any, Protocol

from sdar_envs import registry
from sdar_envs.base import EnvError, NoPlace, StepInfo
from sdar_envs.pool import EnvPool, EpisodeFailed
from sdar_envs.service import messages
from sdar_envs.service import protocol as p
from sdar_envs.service.limits import Limits
from sdar_envs.service.logs import log
from sdar_envs.service.metrics import Metrics
from sdar_envs.service.protocol import Refusal
from sdar_envs.service.session import Session
from sdar_envs.service.tasks import TaskIndex

_SWEEP = 1.0  # seconds between two looks for expired sessions
_GRACE = 30.0  # seconds that a client waits beyond our own deadlines


class Connection(Protocol):
    async def send(self, message: Mapping[str, Any]) -> None: ...


class EnvService:
    """The sessions of one environment family on one pool of worker processes.

    Args:
        family: name of a registered environment.
        config: its configuration on this host.
        limits: how much to take on.
        pool: arguments of `EnvPool` (``workers``, ``envs_per_worker``, deadlines).
    """

    def __init__(self, family: str, config: Mapping[str, Any], limits: Limits, pool: Mapping[str, Any]) -> None:
        self.name, self.limits = family, limits
        self._family = registry.get(family)
        self._config = self._family.settings(config)
        self.pool = EnvPool(family, config, **pool)
        self._envs_per_worker = self.pool.places // pool.get("workers", 2)
        self._tasks = TaskIndex(self._family, config)
        self.metrics = Metrics(family)
        self.connections: set[Connection] = set()
        self._sessions: dict[str, Session] = {}
        self._sweeper: asyncio.Task | None = None
        self.draining = self._cut_off = False

    async def start(self) -> None:
        """Start the workers; `EnvError` if they cannot."""
        await self.pool.start()
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    @property
    def unready(self) -> str:
        """Why no new session may begin, or nothing."""
        return "draining" if self.draining else self.pool.broken

    async def answer(self, request: messages.Request, connection: Connection) -> dict[str, Any]:
        """``{"ok": ...}`` or ``{"error": ...}``; never raises for anything a client can send."""
        try:
            if isinstance(request, messages.Step):
                return await self._step(request, connection)
            if isinstance(request, messages.Reset):
                return await self._reset(request, connection)
            if isinstance(request, messages.Close):
                self._end(request.session, "closed")
                return {"ok": None}
            if isinstance(request, messages.Resume):
                for session_id in request.sessions:
                    if session_id in self._sessions:
                        self._sessions[session_id].used_by(connection)
                return {"ok": None}
            if isinstance(request, messages.Tasks):
                return {"ok": await self._tasks.digest(request.split)}
            return {"ok": self._hello(request)}
        except Refusal as refusal:
            return p.error(refusal.kind, str(refusal))

    def lose(self, connection: Connection, for_good: bool) -> None:
        """A connection is gone; its sessions end now if it said good-bye, else they wait to be resumed."""
        self.connections.discard(connection)
        for session in list(self._sessions.values()):
            if session.connection is connection and for_good:
                self._end(session.id, "good_bye")
            else:
                session.lose(connection)

    async def drain(self) -> None:
        """Take no new sessions, wait for those in play until they or the drain's time are over."""
        self.draining = True
        log("draining", sessions=len(self._sessions), seconds=self.limits.drain_timeout)
        told = (connection.send({"event": p.DRAINING}) for connection in list(self.connections))
        telling = asyncio.gather(*told, return_exceptions=True)
        for session in [session for session in self._sessions.values() if not session.begun]:
            self._end(session.id, "drained")  # it begins elsewhere
        end = time.monotonic() + self.limits.drain_timeout
        while self._sessions and time.monotonic() < end:
            await asyncio.sleep(0.05)
        telling.cancel()
        log("drained", cut_off=len(self._sessions))
        self._cut_off = bool(self._sessions)
        for session_id in list(self._sessions):
            self._end(session_id, "drained")

    async def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        for session_id in list(self._sessions):
            self._end(session_id, "stopped")
        if self._cut_off:  # some of its workers are at it still, and there is no time left
            self.pool.kill()
        else:
            await self.pool.close()

    def _hello(self, request: messages.Hello) -> dict[str, Any]:
        if request.protocol != p.VERSION:
            raise Refusal(p.BAD_MESSAGE, f"protocol {request.protocol} is not spoken here, only {p.VERSION}")
        own = self._family.own_keys
        calls = self._envs_per_worker  # those of one worker wait for each other
        return {
            "env": self.name,
            "config": {key: value for key, value in self._config.items() if key not in own},
            "places": self.pool.places,
            "max_action_bytes": self.limits.max_action_bytes,
            "step_deadline": self.pool.step_timeout * calls + _GRACE,
            "reset_deadline": self.limits.begin_timeout + _GRACE,
            "draining": self.draining,
        }

    async def _reset(self, request: messages.Reset, connection: Connection) -> dict[str, Any]:
        content = request.model_dump(exclude={"id"})
        session = self._sessions.get(request.session)
        if session is None:
            if self.unready:
                raise Refusal(p.UNAVAILABLE, f"no new sessions here: {self.unready}")
            if len(self._sessions) >= self.pool.places + self.limits.max_waiting:
                raise Refusal(p.BUSY, f"{len(self._sessions)} sessions are open or waiting already")
            session = self._sessions[request.session] = Session(request.session, self.pool.session(), connection)
            session.begin(content, self._begin(session, request))
            self.metrics.sessions.set(len(self._sessions))
        elif session.seq or not session.same(content):
            raise Refusal(p.CONFLICT, "this session was opened with another request, or has gone on")
        else:
            self.metrics.repeats.inc()
        session.used_by(connection)
        return await session.answer()

    async def _begin(self, session: Session, request: messages.Reset) -> dict[str, Any]:
        started = time.monotonic()
        try:
            task = await self._tasks.find(request.split, request.task)
            reset = session.play.reset(task, request.seed)
            observation, info = await asyncio.wait_for(reset, self.limits.begin_timeout)
            session.begun = True
        except asyncio.TimeoutError:
            return p.error(p.BUSY, f"no place was free within {self.limits.begin_timeout:g} s")
        except Refusal as refusal:
            return p.error(refusal.kind, str(refusal))
        except EpisodeFailed as error:
            return p.error(p.FAILED, str(error))
        except (EnvError, NoPlace) as error:  # the pool can start no workers any more
            log("pool broken", logging.ERROR, reason=str(error))
            return p.error(p.UNAVAILABLE, str(error))
        finally:
            if not session.begun:  # so sending it again may try again
                session.play.leave()
                self._forget(session, "not_begun")
        self.metrics.calls.labels("reset").observe(time.monotonic() - started)
        return {"ok": [observation, info]}

    async def _step(self, request: messages.Step, connection: Connection) -> dict[str, Any]:
        size = len(request.action.encode())
        if size > self.limits.max_action_bytes:
            raise Refusal(p.TOO_LARGE, f"an action of {size} bytes; at most {self.limits.max_action_bytes} are taken")
        session = self._sessions.get(request.session)
        if session is None:
            raise Refusal(
                p.UNKNOWN_SESSION,
                "this service does not know the session: it ended, expired, or the service was restarted",
            )
        if session.next(request.seq, request.action, self.limits):
            session.begin(request.action, self._play(session, request.action))
        else:
            self.metrics.repeats.inc()
        session.used_by(connection)
        return await session.answer()

    async def _play(self, session: Session, action: str) -> dict[str, Any]:
        started = time.monotonic()
        try:
            answer: tuple[str, float, bool, bool, StepInfo] = await session.play.step(action)
        except EpisodeFailed as error:
            log("episode failed", logging.WARNING, session=session.id[:8], step=session.seq, reason=str(error))
            return p.error(p.FAILED, str(error))
        self.metrics.calls.labels("step").observe(time.monotonic() - started)
        return {"ok": answer}

    def _end(self, session_id: str, reason: str) -> None:
        session = self._sessions.get(session_id)
        if session is not None:
            session.end()
            self._forget(session, reason)

    def _forget(self, session: Session, reason: str) -> None:
        if self._sessions.get(session.id) is session:
            del self._sessions[session.id]
            self.metrics.ended.labels(reason).inc()
            self.metrics.sessions.set(len(self._sessions))
            log("session ended", logging.DEBUG, session=session.id[:8], reason=reason, steps=session.seq)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            now = time.monotonic()
            for session in list(self._sessions.values()):
                if reason := session.expired(now, self.limits):
                    log("session expired", logging.WARNING, session=session.id[:8], reason=reason)
                    self._end(session.id, reason)
