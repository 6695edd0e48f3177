"""Scores rows at several teacher servers, which may go away and come back while it does."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from sdar_verl.teacher.errors import TeacherNotAwaited, TeacherRejected, TeacherUnavailable
from sdar_verl.teacher.remote.endpoint import Endpoint, Failed
from sdar_verl.teacher.remote.fingerprint import Fingerprint
from sdar_verl.teacher.remote.protocol import ScoreRow

_LOOK = 0.05  # seconds between two looks at what the others have done
_ASK = 1.0  # seconds of waiting for a server after which it is asked whether to wait on


@dataclass(frozen=True)
class Patience:
    """Seconds, and how often.

    Attributes:
        connect: for one connection; `request`: for one whole answer.
        dark: without a single usable server, after which the round is given up.
        retries: attempts for one row after its first.
        recheck: after which a server must show its fingerprint again; 0 checks at the start of each round.
    """

    connect: float = 10.0
    request: float = 120.0
    dark: float = 30.0
    retries: int = 5
    recheck: float = 60.0


@dataclass
class Counts:
    """Of one round: rows scored, requests that failed, times that a server was not the teacher, servers that were lost
    (in the middle of their work), seconds without any server once one had failed."""

    rows: int = 0
    failed: int = 0
    rejected: int = 0
    lost: int = 0
    dark_seconds: float = 0.0


class RemoteTeacher:
    """A client of equal teacher servers.

    Every server shows its fingerprint before its first score, after each failure, and again after a while; those that
    fail or show another one are left out for a pause. Each takes a next row when it has finished one, so that the
    quicker ones take more. The methods may be called from any thread, one at a time.

    Args:
        urls: addresses, ``http://host:port``.
        expected: the fingerprint; without log-probabilities the first server's become the expected ones.
        least: tokens that a server must take.
        token: for the ``Authorization`` header; never logged.
        model: the served name; None takes the only one that a server has.
        tolerance: nats that the probe's scores may differ by, in the mean.
        concurrency: requests at once at one server.
    """

    def __init__(
        self,
        urls: Sequence[str],
        expected: Fingerprint,
        *,
        least: int,
        token: str | None = None,
        model: str | None = None,
        tolerance: float = 0.05,
        concurrency: int = 8,
        patience: Patience | None = None,
    ):
        self.endpoints = [Endpoint(url) for url in urls]
        self.expected, self._least, self._model, self._tolerance = expected, least, model, tolerance
        self._concurrency, self._patience = concurrency, patience or Patience()
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._adopting: asyncio.Lock | None = None
        self.counts = Counts()

    def check(self) -> None:
        """Ask every server for its fingerprint, once.

        Raises:
            TeacherRejected: one of them is not the teacher.
            TeacherUnavailable: none can be reached.
        """
        _run(self._check())

    def score(self, rows: Sequence[ScoreRow], give_up: Callable[[], bool] = lambda: False) -> list[list[float]]:
        """Log-probabilities of each row's response; `counts` are of this round, given up or not.

        Args:
            rows: to score.
            give_up: asked, in another thread, about every second while no server is usable.

        Raises:
            TeacherUnavailable: no server was usable for ``patience.dark`` seconds, or a row failed too often. No
                score of the round is given then.
            TeacherNotAwaited: `give_up` said so.
        """
        self.counts = Counts()
        return _run(_Round(self, rows, give_up).run()) if rows else []

    def expect(self, model: str, expected: Fingerprint) -> None:
        """From now on a server must serve `model` and show `expected`; each is asked again before its next score."""
        self._model, self.expected = model, expected
        for endpoint in self.endpoints:
            endpoint.good, endpoint.reason, endpoint.failures = False, "it was not asked for the newest weights yet", 0

    def _session(self) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=self._patience.request, sock_connect=self._patience.connect)
        return aiohttp.ClientSession(
            headers=self._headers, timeout=timeout, connector=aiohttp.TCPConnector(limit=0, force_close=True)
        )

    async def _verify(self, endpoint: Endpoint, session: aiohttp.ClientSession) -> None:
        """Raises what `Endpoint.verify` raises; the first scores of all become the expected ones."""
        if self.expected.log_probs is not None:
            await endpoint.verify(session, self._model, self.expected, self._least, self._tolerance)
            return
        async with self._adopting:  # one after the other: two first ones could be two teachers
            found = await endpoint.verify(session, self._model, self.expected, self._least, self._tolerance)
            if self.expected.log_probs is None:
                self.expected = self.expected.with_scores(found)

    async def _check(self) -> None:
        self._adopting = asyncio.Lock()
        async with self._session() as session:
            for endpoint in self.endpoints:
                try:
                    await self._verify(endpoint, session)
                except Failed as error:
                    endpoint.out(str(error))
                except TeacherRejected as error:
                    endpoint.out(str(error), rejected=True)
                    raise TeacherRejected(f"the teacher server {endpoint.url} cannot be used: {error}") from None
        if not any(endpoint.good for endpoint in self.endpoints):
            raise TeacherUnavailable(f"no teacher server can be used: {self.reasons()}")

    def reasons(self) -> str:
        """Why each server that is left out is."""
        return "; ".join(f"{e.url}: {e.reason}" for e in self.endpoints if not e.good) or "none is left out"


@dataclass
class _Round:
    """The rows of one call of `RemoteTeacher.score`."""

    teacher: RemoteTeacher
    rows: Sequence[ScoreRow]
    give_up: Callable[[], bool]

    def __post_init__(self) -> None:
        self.counts = self.teacher.counts
        self.waiting = deque(range(len(self.rows)))
        self.scores: list[list[float] | None] = [None] * len(self.rows)
        self.attempts = [0] * len(self.rows)
        self.broken: str | None = None

    async def run(self) -> list[list[float]]:
        self.teacher._adopting = asyncio.Lock()
        for endpoint in self.teacher.endpoints:
            endpoint.retry_at = 0.0  # time has passed: each may be back, and is asked at once
        async with self.teacher._session() as session:
            async with _tasks(self._serve(endpoint, session) for endpoint in self.teacher.endpoints) as servers:
                await self._watch(servers)
        return self.scores  # none is None: `_watch` returned

    @property
    def done(self) -> bool:
        return self.counts.rows == len(self.rows)

    async def _watch(self, servers: Iterable[asyncio.Task]) -> None:
        patience = self.teacher._patience
        dark_since: float | None = None
        looked = asked = time.monotonic()
        while not self.done:
            for server in servers:
                if server.done():  # they end with the round alone, or by a mistake of ours
                    server.result()
            if self.broken is not None:
                raise TeacherUnavailable(self.broken)
            now = time.monotonic()
            if any(endpoint.good for endpoint in self.teacher.endpoints):
                dark_since = None
            elif dark_since is None:
                dark_since = now
            else:
                if self.counts.failed or self.counts.rejected:  # else the first checks are still under way
                    self.counts.dark_seconds += now - looked
                if now - asked > _ASK:
                    asked = now
                    if self.give_up():
                        raise TeacherNotAwaited(f"the run ends while no teacher is usable: {self.teacher.reasons()}")
                if now - dark_since > patience.dark:
                    raise TeacherUnavailable(
                        f"no teacher server was usable for {patience.dark:g} s, {len(self.rows) - self.counts.rows} of "
                        f"{len(self.rows)} rows are not scored: {self.teacher.reasons()}"
                    )
            looked = now
            await asyncio.sleep(_LOOK)

    async def _serve(self, endpoint: Endpoint, session: aiohttp.ClientSession) -> None:
        """Keep one server at work until the round is over."""
        if endpoint.good and time.monotonic() - endpoint.checked >= self.teacher._patience.recheck:
            endpoint.good = False  # to be checked again, without a pause
        while not self.done:
            if not endpoint.good:
                if (pause := endpoint.retry_at - time.monotonic()) > 0:
                    await asyncio.sleep(pause)
                await self._attempt(endpoint, self.teacher._verify(endpoint, session))
                continue
            await self._work(endpoint, session)
            if not self.done:
                await asyncio.sleep(_LOOK)  # the rest is under way elsewhere, and may come back

    async def _work(self, endpoint: Endpoint, session: aiohttp.ClientSession) -> None:
        """Until no row waits or the server is left out. Then its other requests end too: one to a machine that went
        away is silent for all of ``patience.request``, and neither its row nor the server has to wait for that."""
        async with _tasks(self._consume(endpoint, session) for _ in range(self.teacher._concurrency)) as working:
            while working and endpoint.good:
                ended, working = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.result()

    async def _consume(self, endpoint: Endpoint, session: aiohttp.ClientSession) -> None:
        while endpoint.good and self.waiting:
            number = self.waiting.popleft()
            try:
                self.scores[number] = await self._attempt(endpoint, endpoint.score(session, self.rows[number]))
            finally:
                if self.scores[number] is None:  # it failed, or was given up
                    self.waiting.appendleft(number)
            if self.scores[number] is not None:
                self.counts.rows += 1
                continue
            self.attempts[number] += 1
            if self.attempts[number] > self.teacher._patience.retries:
                self.broken = f"a row failed {self.attempts[number]} times, last at {endpoint.url}: {endpoint.reason}"

    async def _attempt(self, endpoint: Endpoint, request) -> list[float] | None:
        """The result of `request`; a failure leaves the server out."""
        working = endpoint.good
        try:
            return await request
        except TeacherRejected as error:
            self.counts.rejected += 1
            reason, rejected = str(error), True
        except Failed as error:
            self.counts.failed += 1
            reason, rejected = str(error), False
        if working and endpoint.good:  # its other requests, which fail with it, are one loss
            self.counts.lost += 1
        if endpoint.good or not working:
            endpoint.out(reason, rejected=rejected)
        return None


@asynccontextmanager
async def _tasks(coroutines: Iterable[Coroutine]) -> AsyncIterator[set[asyncio.Task]]:
    """Each as a task; those that still run at the end are cancelled and waited for."""
    tasks = {asyncio.create_task(coroutine) for coroutine in coroutines}
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _run(coroutine):
    """Its result, from a thread of its own: the caller may stand in an event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
