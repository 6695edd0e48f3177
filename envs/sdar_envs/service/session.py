"""One session of a service: an episode, its last request and the answer to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

from sdar_envs.pool import EnvSession
from sdar_envs.service.limits import Limits
from sdar_envs.service.protocol import CONFLICT, LIMIT, UNAVAILABLE, UNKNOWN_SESSION, Refusal, error


class Session:
    """Plays each request once. The answer to the last one is kept, for a client that did not get it.

    Args:
        play: the episode's place in the pool.
        connection: whatever stands for the connection that opened it.

    Attributes:
        seq: number of the last step begun; 0 after `reset`.
        begun: whether its `reset` has succeeded.
        connection: the one that used it last; None since `detached` (monotonic seconds).
    """

    def __init__(self, session_id: str, play: EnvSession, connection: object) -> None:
        self.id = session_id
        self.play = play
        self.seq = 0
        self.begun = False
        self.connection: object | None = connection
        self.detached = 0.0
        self._used = time.monotonic()
        self._request: Any = None
        self._answer: asyncio.Future[dict[str, Any]] | None = None

    def used_by(self, connection: object) -> None:
        self.connection, self._used = connection, time.monotonic()

    def lose(self, connection: object) -> None:
        """`connection` is gone."""
        if self.connection is connection:
            self.connection, self.detached = None, time.monotonic()

    def next(self, seq: int, request: Any, limits: Limits) -> bool:
        """Whether the step `seq` is a new one that is to be played now (False: it is the last one once more).

        Raises:
            Refusal: it is out of order, differs from what was sent as `seq` before, or is one too many.
        """
        if seq == self.seq and request == self._request:
            return False
        if seq == self.seq:
            raise Refusal(CONFLICT, f"step {seq} was another request before")
        if seq != self.seq + 1:
            raise Refusal(CONFLICT, f"step {seq} cannot follow step {self.seq}")
        if self._answer is None or not self._answer.done():
            raise Refusal(CONFLICT, f"step {seq} came before the answer to step {self.seq}")
        if seq > limits.max_steps:
            raise Refusal(LIMIT, f"a session may have {limits.max_steps} steps (--max-steps)")
        self.seq = seq
        return True

    def begin(self, request: Any, work: Awaitable[dict[str, Any]]) -> None:
        """Start `work`, the playing of `request`; it goes on whether or not anybody waits for it."""
        self._request, self._answer = request, asyncio.ensure_future(work)

    def same(self, request: Any) -> bool:
        return self._request == request

    async def answer(self) -> dict[str, Any]:
        """The answer to the last request, for each that asks for it."""
        assert self._answer is not None
        try:
            return await asyncio.shield(self._answer)
        except asyncio.CancelledError:
            if not self._answer.cancelled():
                raise
            if self.begun:  # it was not our caller who was cancelled: the session was ended
                return error(UNKNOWN_SESSION, "the session was ended while its request was being played")
            return error(UNAVAILABLE, "the session was ended before it began")
        finally:
            self._used = time.monotonic()

    def expired(self, now: float, limits: Limits) -> str:
        """Why the session is to be ended, or nothing."""
        if self.connection is None:
            return "no_connection" if now - self.detached > limits.resume_timeout else ""
        idle = self._answer is not None and self._answer.done() and now - self._used > limits.idle_timeout
        return "idle" if idle else ""

    def end(self) -> None:
        """Give the place back; a request still being played is left to its worker and its answer dropped."""
        if self._answer is not None:
            self._answer.cancel()
        self.play.leave()
