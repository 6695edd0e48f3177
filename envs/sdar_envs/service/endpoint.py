"""One service as a client sees it: connects, checks, connects again, sends again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdar_envs.base import EnvError
from sdar_envs.service import protocol as p
from sdar_envs.service.link import Link, LinkLost, address_of
from sdar_envs.service.protocol import Refusal

_RECENT_TASKS = 128
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 2.0  # seconds between two attempts to connect
_HELLO = {"env", "config", "places", "max_action_bytes", "step_deadline", "reset_deadline", "draining"}
_MOST_SENDINGS = 8  # of one request, over connections that break each time


@dataclass(frozen=True)
class Patience:
    """Seconds.

    Attributes:
        connect: that one attempt to connect may take.
        reconnect: that a lost connection may take to come back before its episodes fail.
        ping: without a sign of life before a connection counts as lost.
    """

    connect: float = 10.0
    reconnect: float = 60.0
    ping: float = 20.0

    def __post_init__(self) -> None:
        if min(self.connect, self.reconnect, self.ping) <= 0:
            raise EnvError("the patience with environment services must be positive in all its parts")


class Endpoint:
    """Connects when it is needed; one connection carries all sessions.

    Args:
        url: ``ws://host:port`` or ``wss://host[:port]``.
        token: what the service wants, if anything.
        expected: what its `hello` must say of ``env`` and ``config``.
        patience: with its connections.

    Attributes:
        active: sessions open here, or being opened.
        sessions: ids of those open here; a new connection tells them, so that none is taken for given up.
        recent: tasks begun here, oldest first.
        ended: sessions that the service has not been told yet to end.
        down_until: monotonic time before which no new session is tried here.
        connections: how many were made.
    """

    def __init__(self, url: str, token: str | None, expected: Mapping[str, Any], patience: Patience) -> None:
        address_of(url)
        self.url, self._token, self._expected, self._patience = url, token, expected, patience
        self._link: Link | None = None
        self._connecting: asyncio.Task[Link] | None = None
        self._returning: asyncio.Task[None] | None = None
        self._closed = False
        self.hello: dict[str, Any] = {}
        self.active = 0
        self.sessions: set[str] = set()
        self.recent: list[str] = []
        self.ended: set[str] = set()
        self.draining = False
        self.down_until, self.failures, self.why_down = 0.0, 0, ""
        self.connections = 0

    @property
    def connected(self) -> bool:
        return self._link is not None and self._link.lost is None

    @property
    def places(self) -> int:
        """Places of the service's pool, as far as known."""
        return self.hello.get("places", 1)

    def knows(self, task_id: str) -> bool:
        return task_id in self.recent

    def note(self, task_id: str) -> None:
        self.recent = [*(known for known in self.recent if known != task_id), task_id][-_RECENT_TASKS:]

    def take_down(self, reason: str) -> None:
        """Leave this endpoint alone for a while, longer each time."""
        self.failures += 1
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self.failures, 10)) * random.uniform(0.5, 1.0)
        self.down_until, self.why_down = time.monotonic() + pause, reason

    def can_be_tried(self) -> bool:
        """Whether a new session may be asked for here; one that failed is tried by one caller at a time."""
        if self.connected and self.draining:
            self.why_down = "it is draining"
            return False
        return not self.probed and self.down_until <= time.monotonic()

    @property
    def probed(self) -> bool:
        """Whether it failed and somebody is finding out whether it is back."""
        return self.failures > 0 and self._connecting is not None and not self._connecting.done()

    @property
    def full(self) -> bool:
        """Whether our own sessions have every place of it, as far as known."""
        return self.active >= self.places

    async def connect(self) -> Link:
        """The connection; made, and the service checked, if there is none. Callers at the same time share an attempt.

        Raises:
            LinkLost: not reached this time.
            EnvError: the service cannot be used by this run; says what differs.
        """
        if self.connected:
            return self._link
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        return await asyncio.shield(self._connecting)

    async def call(self, message: Mapping[str, Any], patience: float) -> Any:
        """The ``ok`` of one request, which is sent again, unchanged, as often as its connection breaks.

        Args:
            message: a request that may be repeated: the service plays none twice.
            patience: seconds to wait for a new connection; 0 for one attempt.

        Raises:
            LinkLost: the connection did not come back, the service stopped, or does not answer.
            Refusal: the service does not do it.
            EnvError: the service cannot be used by this run.
        """
        begins, end, broken, pauses = message["op"] == "reset", None, 0, 0
        if not begins and self._link is not None and self._link.lost is not None and self._link.lost.final:
            raise self._link.lost  # the session went with the service
        while True:
            try:
                link = await self.connect()
                end = None
                answer = await link.ask(message, self._deadline(message["op"]))
            except LinkLost as error:
                broken += end is None  # a connection there was broke, or the first attempt failed
                end = time.monotonic() + patience if end is None else end
                if error.final or time.monotonic() >= end or broken >= _MOST_SENDINGS:
                    raise
            else:
                if "ok" in answer:
                    self.failures = 0
                    return answer["ok"]
                if answer["error"]["kind"] != p.BUSY or begins:  # a busy service has not looked at a step yet
                    raise Refusal(answer["error"]["kind"], answer["error"]["message"])
            pauses += 1
            await asyncio.sleep(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(pauses, 8)) * random.uniform(0.5, 1.0))

    async def end(self, session: str) -> None:
        """Tell the service that a session is over: now, or with the next connection."""
        self.ended.add(session)
        try:
            link = await self.connect()
            while self.ended:
                over = self.ended.pop()
                try:
                    await link.ask({"op": "close", "session": over}, self._deadline("close"))
                except LinkLost:
                    self.ended.add(over)
                    raise
        except EnvError:
            pass  # it ends sessions that nobody asks for by itself

    async def close(self) -> None:
        self._closed = True
        for task in (self._returning, self._connecting):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._link is not None:
            await self._link.close()

    def _deadline(self, op: str) -> float:
        """Seconds after which the service itself must have given up; only a broken one takes longer."""
        return self.hello[{"reset": "reset_deadline"}.get(op, "step_deadline")]

    async def _connect(self) -> Link:
        patience, heard = self._patience, (self._on_event, self._on_lost)
        link = await Link.open(self.url, self._token, patience.connect, patience.ping, *heard)
        try:
            answer = await link.ask({"op": "hello", "protocol": p.VERSION}, self._patience.connect)
            self._check(answer)
            if self.connections and self.sessions:
                resumed = {"op": "resume", "sessions": sorted(self.sessions)}
                await link.ask(resumed, self._patience.connect)
        except BaseException:
            await link.close()
            raise
        self.hello, self.draining = answer["ok"], answer["ok"]["draining"]
        self._link, self.connections = link, self.connections + 1
        return link

    def _check(self, answer: Mapping[str, Any]) -> None:
        if "error" in answer:
            raise EnvError(f"the service at {self.url} refuses to talk: {answer['error']['message']}")
        hello = answer["ok"]
        if not isinstance(hello, dict) or not _HELLO <= hello.keys() or not isinstance(hello["config"], dict):
            raise EnvError(f"the service at {self.url} does not say what it is; is it of another version?")
        if hello["env"] != self._expected["env"]:
            raise EnvError(f"the service at {self.url} plays {hello['env']}, this run {self._expected['env']}")
        config, wanted = hello["config"], self._expected["config"]
        different = [
            f"{key} is {config.get(key, '<absent>')!r} there and {wanted.get(key, '<absent>')!r} here"
            for key in sorted(config.keys() | wanted.keys())
            if config.get(key, "<absent>") != wanted.get(key, "<absent>")
        ]
        if different:
            raise EnvError(
                f"the service at {self.url} plays with other settings: {'; '.join(different)}. Start it with "
                "--set KEY=VALUE, or change this run's env settings"
            )

    def _on_event(self, event: str) -> None:
        if event == p.DRAINING:
            self.draining = True

    def _on_lost(self) -> None:
        """Come back for the sessions that are open, also while none of them has anything to ask."""
        lost = None if self._link is None else self._link.lost
        if self._closed or lost is None or lost.final or not self.sessions:
            return
        if self._returning is None or self._returning.done():
            self._returning = asyncio.get_running_loop().create_task(self._return())

    async def _return(self) -> None:
        end, pause = time.monotonic() + self._patience.reconnect, _FIRST_PAUSE
        while self.sessions and time.monotonic() < end:
            try:
                await self.connect()
                return
            except LinkLost:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            except EnvError:  # its sessions' next requests say it
                return
