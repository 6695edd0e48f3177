"""The service at the level of single messages: order, repetition, limits, and whatever a client should not send."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sdar_envs.service.client import RemoteEnvPool
from sdar_envs.service.protocol import PATH
from service_process import ServiceProcess, task
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


@pytest.fixture(scope="module")
def service():
    with ServiceProcess(
        "--workers", "1", "--envs-per-worker", "2", "--max-waiting", "1", "--max-steps", "3", "--max-connections", "6",
        "--max-action-bytes", "100", "--max-message-bytes", "5000", "--begin-timeout", "0.5", "--max-in-flight", "50",
        "--resume-timeout", "1.5", "--idle-timeout", "3", "--max-bad-messages", "4",
    ) as process:  # fmt: skip
        yield process


class Raw:
    """One connection, messages written by hand."""

    def __init__(self, service, **headers):
        self._connect = connect(service.url + PATH, proxy=None, compression=None, **headers)
        self.number = 0

    async def __aenter__(self):
        self.socket = await self._connect
        return self

    async def __aexit__(self, *_):
        await self.socket.close()

    async def ask(self, **message):
        self.number += 1
        await self.socket.send(json.dumps({"id": self.number, **message}))
        answer = json.loads(await asyncio.wait_for(self.socket.recv(), 20))
        assert answer.pop("id") == self.number
        return answer.get("ok", answer.get("error"))

    async def reset(self, session, name="1"):
        return await self.ask(op="reset", session=session, split="train", task=name, seed=None)

    async def step(self, session, seq, action="go"):
        return await self.ask(op="step", session=session, seq=seq, action=action)


def new_session():
    return secrets.token_hex(16)


def test_a_request_sent_again_is_answered_again_and_not_played(service):
    async def play():
        session = new_session()
        async with Raw(service) as one:
            begun = await one.reset(session)
            assert begun == await one.reset(session) and begun[0] == "1/None"
            first = await one.step(session, 1)
            assert first[0] == "1:1:go"
        async with Raw(service) as other:  # good-bye ended it
            assert (await other.step(session, 1))["kind"] == "unknown_session"

        session = new_session()
        async with Raw(service) as one, Raw(service) as other:
            await one.reset(session)
            first = await one.step(session, 1)
            for connection in (one, other, one):
                assert await connection.step(session, 1) == first
            assert (await other.step(session, 2))[0] == "1:2:go"
            assert (await one.step(session, 1))["kind"] == "conflict"
            assert (await one.step(session, 2, "another"))["message"] == "step 2 was another request before"
            assert (await one.step(session, 4))["message"] == "step 4 cannot follow step 2"
            assert (await one.reset(session))["kind"] == "conflict"
            assert (await one.step(session, 3))[0] == "1:3:go"
            assert (await one.step(session, 4))["kind"] == "limit"
            assert await one.ask(op="close", session=session) is None
            assert await one.ask(op="close", session=session) is None
            assert (await one.step(session, 3))["kind"] == "unknown_session"
            assert (await one.step(new_session(), 1))["kind"] == "unknown_session"

    asyncio.run(play())


def test_a_step_asked_for_twice_at_once_is_played_once(service):
    async def play():
        session = new_session()
        async with Raw(service) as one, Raw(service) as other:
            await one.reset(session)
            both = [asyncio.ensure_future(c.step(session, 1, "sleep 0.2")) for c in (one, other)]
            await asyncio.sleep(0.1)
            async with Raw(service) as third:
                early = await third.step(session, 2)
                assert early["kind"] == "conflict" and "before the answer" in early["message"]
            first, second = await asyncio.gather(*both)
            assert first == second and first[0] == "1:1:sleep 0.2"

    asyncio.run(play())


def test_limits_are_answered_with_what_they_are(service):
    async def play():
        async with Raw(service) as one, Raw(service) as other, Raw(service) as third, Raw(service) as fourth:
            sessions = [new_session() for _ in range(4)]
            for session in sessions[:2]:
                await one.reset(session)
            waiting = asyncio.ensure_future(other.reset(sessions[2]))
            await asyncio.sleep(0.1)
            full = await third.reset(sessions[3])
            assert full["kind"] == "busy" and "3 sessions" in full["message"]
            late = await waiting
            assert late["kind"] == "busy" and "within 0.5 s" in late["message"]
            assert (await one.step(sessions[0], 1, "ü" * 51))["kind"] == "too_large"
            assert (await one.step(sessions[0], 1, "ü" * 50))[0].startswith("1:1:")
            async with Raw(service), Raw(service):
                with pytest.raises(InvalidStatus, match="503"):
                    async with Raw(service):
                        pass
            await fourth.socket.send("x" * 5001)
            with pytest.raises(ConnectionClosed) as closed:
                await fourth.socket.recv()
            assert closed.value.rcvd.code == 1009
            assert (await one.step(sessions[0], 2))[0] == "1:2:go"

    asyncio.run(play())


def test_pages_in_browsers_are_refused(service):
    async def play():
        with pytest.raises(InvalidStatus, match="403"):
            async with Raw(service, origin="http://localhost"):
                pass

    asyncio.run(play())


def test_sessions_nobody_asks_for_are_ended(service):
    async def play():
        idle, lost = new_session(), new_session()
        async with Raw(service) as one:
            await one.reset(idle)
            other = Raw(service)
            async with other:
                await other.reset(lost)
                other.socket.transport.abort()  # no good-bye
            async with Raw(service) as back:
                assert (await back.step(lost, 1))[0] == "1:1:go", "resumed in time"
                back.socket.transport.abort()
            await asyncio.sleep(2.8)
            assert (await one.step(lost, 2))["kind"] == "unknown_session"
            await asyncio.sleep(1.8)
            assert (await one.step(idle, 1))["kind"] == "unknown_session"

    asyncio.run(play())
    assert service.metric("sdar_env_places_busy") == 0


def test_a_client_that_reads_nothing_is_held_back_and_the_others_are_not(service):
    async def play():
        async with Raw(service) as flood, Raw(service) as other:
            flood.socket.transport.pause_reading()
            hello, sent = json.dumps({"id": 1, "op": "hello", "protocol": 2}), 0

            async def send():
                nonlocal sent
                while True:
                    await flood.socket.send(hello)
                    sent += 1

            sending = asyncio.ensure_future(send())
            before = -1
            while sent != before:  # until TCP pushes back
                before = sent
                await asyncio.sleep(1)
            assert not sending.done() and sent > 50
            started = time.monotonic()
            assert (await other.ask(op="hello", protocol=2))["env"] == "toy"
            assert time.monotonic() - started < 2
            sending.cancel()
            flood.socket.transport.abort()

    asyncio.run(play())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NEARLY = st.fixed_dictionaries(
    {"id": st.integers(-1, 2**54) | JSON, "op": st.sampled_from(["hello", "tasks", "reset", "step", "close"]) | JSON},
    optional={
        "session": st.text("0123456789abcdef", min_size=32, max_size=32) | JSON,
        "seq": st.integers() | JSON,
        "split": st.sampled_from(["train", "../train", "/etc", "", "a" * 100]) | JSON,
        "task": st.text() | JSON,
        "seed": JSON,
        "action": st.text() | JSON,
        "protocol": st.integers() | JSON,
    },
)
FRAMES = st.text(max_size=200) | st.binary(max_size=200) | (JSON | NEARLY).map(json.dumps)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames=st.lists(FRAMES, min_size=1, max_size=12))
def test_whatever_is_sent_gets_an_answer_or_the_connection_ends(service, frames):
    async def send():
        async with Raw(service) as one:
            answers = 0
            try:
                for frame in frames:
                    await one.socket.send(frame)
                for _ in frames:
                    answer = json.loads(await asyncio.wait_for(one.socket.recv(), 10))
                    assert ("ok" in answer) != ("error" in answer)
                    answers += 1
            except ConnectionClosed as closed:
                assert closed.rcvd.code == 1008 and answers >= 4, closed

    asyncio.run(send())
    assert service.process.poll() is None


def test_garbage_beside_an_episode_does_not_disturb_it(service):
    """Deep nesting, huge numbers, broken UTF-8, half frames and plain noise instead of WebSocket."""
    bad = [
        "[" * 2400,
        '{"a":' * 800,
        "9" * 4000,
        '{"id": 1e999}',
        b"\xff\xfe",
        "\ud83d".encode("utf-8", "surrogatepass"),
    ]

    async def noise(stop):
        rng = random.Random(0)
        while not stop.is_set():
            try:
                if rng.random() < 0.5:
                    async with Raw(service) as one:
                        await one.socket.send(rng.choice(bad))
                        await asyncio.wait_for(one.socket.recv(), 10)
                else:
                    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
                    writer.write(
                        rng.randbytes(300) if rng.random() < 0.5 else b"GET " + PATH.encode() + b" HTTP/1.1\r\n"
                    )
                    await writer.drain()
                    writer.transport.abort()
            except (ConnectionClosed, OSError, InvalidStatus):
                pass

    async def play():
        stop = asyncio.Event()
        makers = [asyncio.ensure_future(noise(stop)) for _ in range(3)]
        async with RemoteEnvPool("toy", {}, [service.url]) as pool:
            for number in range(60):
                async with pool.session() as session:
                    await session.reset(task(str(number % 4)))
                    for step in (1, 2, 3):
                        assert (await session.step("go"))[0] == f"{number % 4}:{step}:go"
            assert pool.stats()["failures"] == pool.stats()["restarts"] == 0
        stop.set()
        await asyncio.gather(*makers)

    asyncio.run(play())
    assert service.get("/health")[0] == 200
