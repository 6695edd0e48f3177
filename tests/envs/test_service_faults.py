"""Services and connections that fail under a running client: what is lost, what goes on, and how soon one knows."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

import pytest
from sdar_envs.base import EnvError
from sdar_envs.pool import EpisodeFailed
from sdar_envs.service.client import NoEndpoint, Patience, RemoteEnvPool
from service_process import ServiceProcess, Wire, task
from test_pool import is_running, pid_of, until

QUICK = Patience(connect=2.0, reconnect=1.5, ping=20.0)


def remote(*endpoints: str, patience: Patience = QUICK) -> RemoteEnvPool:
    return RemoteEnvPool("toy", {}, endpoints, patience=patience)


@pytest.fixture(scope="module")
def service():
    with ServiceProcess("--workers", "2", "--envs-per-worker", "4") as process:
        yield process


@pytest.mark.parametrize("seed", range(3))
def test_no_step_is_lost_or_played_twice_over_a_wire_that_breaks(service, seed):
    """Connections break before a request arrives, after it arrived, and while nothing is under way."""

    async def play():
        rng = random.Random(seed)
        repeats = service.metric("sdar_env_repeats_total")
        async with Wire(service.port) as wire:
            wire.cut_requests = {n for n in range(4, 400) if rng.random() < 0.06}
            wire.cut_answers = {n for n in range(4, 400) if rng.random() < 0.06}
            async with remote(wire.url) as pool, pool.session() as session, pool.session() as other:
                assert (await session.reset(task("1"), seed))[0] == f"1/{seed}"
                await other.reset(task("2"))
                for number in range(1, 120):
                    action = f"{rng.random()}"
                    answer, beside = await asyncio.gather(session.step(action), other.step("go"))
                    assert answer[0] == f"1:{number}:{action}" and beside[0] == f"2:{number}:go"
                    if rng.random() < 0.05:
                        wire.cut()
                assert pool.stats()["failures"] == 0 and pool.stats()["restarts"] >= 5
            assert wire.connections >= pool.stats()["restarts"] + 1
        assert service.metric("sdar_env_repeats_total") > repeats, "no answer was lost on its way"

    asyncio.run(play())


def test_an_episode_outlives_a_connection_that_comes_back_in_time(service):
    async def play():
        async with Wire(service.port) as wire, remote(wire.url) as pool, pool.session() as session:
            await session.reset(task())
            wire.shut = True
            wire.cut()
            step = asyncio.ensure_future(session.step("go"))
            await asyncio.sleep(0.5)
            assert not step.done()
            wire.shut = False
            assert (await step)[0] == "1:1:go" and pool.stats()["restarts"] == 1

    asyncio.run(play())


def test_an_episode_outlives_a_connection_that_breaks_while_it_has_nothing_to_ask():
    """The service gives up sessions without a connection; the client comes back before it has anything to send."""

    async def play():
        with ServiceProcess("--workers", "1", "--resume-timeout", "1") as service:
            async with Wire(service.port) as wire, remote(wire.url) as pool, pool.session() as session:
                await session.reset(task())
                wire.cut()
                await asyncio.sleep(3)
                assert (await session.step("go"))[0] == "1:1:go" and pool.stats()["restarts"] == 1

    asyncio.run(play())


def test_a_reset_that_waited_long_outlives_a_lost_connection():
    """The time that it waited for a place is not held against a service that was there all the while."""

    async def play():
        with ServiceProcess("--workers", "1", "--envs-per-worker", "1") as service:
            async with (
                Wire(service.port) as wire,
                remote(wire.url) as pool,
                pool.session() as one,
                pool.session() as two,
            ):
                await one.reset(task())
                waiting = asyncio.ensure_future(two.reset(task("2")))
                await asyncio.sleep(2.5)  # longer than its patience
                wire.shut = True
                wire.cut()
                await asyncio.sleep(2.5)  # longer than a request is taken up again
                assert not waiting.done()
                wire.shut = False
                one.leave()
                assert (await asyncio.wait_for(waiting, 30))[0] == "2/None"

    asyncio.run(play())


def test_an_episode_fails_when_its_connection_does_not_come_back(service):
    async def play():
        async with Wire(service.port) as wire, remote(wire.url) as pool, pool.session() as session:
            await session.reset(task())
            wire.shut = True
            wire.cut()
            started = time.monotonic()
            with pytest.raises(EpisodeFailed, match="was lost: .*cannot be reached"):
                await session.step("go")
            assert 1.5 <= time.monotonic() - started < 8
            for _ in range(2):
                with pytest.raises(EpisodeFailed):
                    await session.step("go")
            with pytest.raises(NoEndpoint, match="no environment service takes episodes any more: ws://.*reached"):
                await session.reset(task())
            wire.shut = False
            assert (await session.reset(task()))[0] == "1/None", "back again"

    asyncio.run(play())


def test_a_killed_service_takes_its_own_episodes_with_it_and_no_others():
    async def play():
        places = ("--workers", "1", "--envs-per-worker", "8")
        with ServiceProcess(*places) as one, ServiceProcess(*places) as two:
            async with remote(one.url, two.url) as pool:
                sessions = [pool.session() for _ in range(8)]
                infos = [(await s.reset(task(str(i % 4))))[1] for i, s in enumerate(sessions)]
                workers = {pid_of(info) for info in infos}
                assert len(workers) == 2, "both services play"
                victim = pid_of(infos[0])
                steps = [asyncio.ensure_future(s.step("sleep 0.5")) for s in sessions]
                await asyncio.sleep(0.2)
                killed = one if _parent(victim) == one.process.pid else two
                killed.process.kill()
                results = await asyncio.gather(*steps, return_exceptions=True)
                for info, result in zip(infos, results, strict=True):
                    if pid_of(info) == victim:
                        assert isinstance(result, EpisodeFailed), result
                    else:
                        assert result[0].endswith(":1:sleep 0.5")
                assert pool.stats()["failures"] == sum(pid_of(info) == victim for info in infos)
                await until(lambda: not is_running(victim))
                for number in range(8):  # new episodes begin at the other one, at once
                    async with pool.session() as session:
                        _, info = await asyncio.wait_for(session.reset(task(str(number % 4))), 5)
                        assert {pid_of(info)} == workers - {victim}
                with ServiceProcess(*places, port=killed.port):  # replaced under the same address
                    await asyncio.sleep(2.5)  # longer than a dead endpoint is left alone
                    # twice as many episodes as one has places for: a service that knows a task already comes first
                    everyone = sessions + [pool.session() for _ in range(8)]
                    used = {pid_of((await asyncio.wait_for(s.reset(task()), 60))[1]) for s in everyone}
                    assert len(used) == 2

    asyncio.run(play())


def test_who_finds_one_full_waits_for_one_that_is_being_asked_whether_it_is_back():
    """At the full one a place may take minutes."""

    async def play():
        place = ("--workers", "1", "--envs-per-worker", "1")
        with ServiceProcess(*place) as one, ServiceProcess(*place) as two:
            async with remote(one.url, two.url) as pool, pool.session() as session, pool.session() as other:
                first = pid_of((await session.reset(task()))[1])
                (idle,) = (endpoint for endpoint in pool._endpoints if not endpoint.full)
                idle.failures = 1
                idle._connecting = asyncio.ensure_future(asyncio.sleep(1))
                assert idle.probed
                found = pid_of((await asyncio.wait_for(other.reset(task()), 20))[1])
                assert found != first and not idle.probed

    asyncio.run(play())


def test_a_service_that_stops_answering_is_noticed_and_resumed():
    async def play():
        with ServiceProcess("--workers", "1") as frozen:
            patience = Patience(connect=1.0, reconnect=2.0, ping=0.5)
            async with (
                remote(frozen.url, patience=patience) as pool,
                pool.session() as session,
                pool.session() as other,
            ):
                await session.reset(task())
                await other.reset(task("2"))
                frozen.signal(signal.SIGSTOP)
                step = asyncio.ensure_future(session.step("go"))
                await asyncio.sleep(1.7)
                frozen.signal(signal.SIGCONT)
                assert (await step)[0] == "1:1:go"
                frozen.signal(signal.SIGSTOP)
                started = time.monotonic()
                with pytest.raises(EpisodeFailed, match="was lost"):
                    await session.step("go")
                assert time.monotonic() - started < 12
                frozen.signal(signal.SIGCONT)
                assert (await other.step("go"))[0] == "2:1:go"

    asyncio.run(play())


def test_a_slow_service_is_waited_for_and_a_stuck_environment_is_not():
    async def play():
        with ServiceProcess("--workers", "1", "--step-timeout", "1") as slow, ServiceProcess("--workers", "1") as fine:
            async with remote(slow.url) as pool, pool.session() as session:
                await session.reset(task())
                steps = [await session.step("sleep 0.7") for _ in range(3)]
                assert steps[-1][0] == "1:3:sleep 0.7"
                with pytest.raises(EpisodeFailed, match=r"no answer to 'step' within 1 s"):
                    await session.step("hang")
                assert (await session.reset(task()))[0] == "1/None", "the worker was replaced"
                assert slow.metric("sdar_env_worker_restarts") == 1
            assert fine.get("/health")[0] == 200

    asyncio.run(play())


def test_sigterm_lets_episodes_finish_and_sends_new_ones_elsewhere():
    async def play():
        with ServiceProcess("--workers", "1") as leaving, ServiceProcess("--workers", "1") as staying:
            async with remote(leaving.url, staying.url) as pool:
                sessions = [pool.session() for _ in range(4)]
                infos = [(await s.reset(task(str(i))))[1] for i, s in enumerate(sessions)]
                leaving.signal(signal.SIGTERM)
                await asyncio.to_thread(leaving.wait_for, "draining")
                assert leaving.get("/ready")[0] == 503 and leaving.get("/health")[0] == 200
                for _ in range(4):
                    async with pool.session() as late:
                        _, info = await late.reset(task("0"))
                        assert _parent(pid_of(info)) == staying.process.pid
                for _ in range(3):
                    await asyncio.gather(*(session.step("sleep 0.1") for session in sessions))
                assert leaving.process.poll() is None
                assert {_parent(pid_of(info)) for info in infos} == {leaving.process.pid, staying.process.pid}
                for session in sessions:
                    assert (await session.step("win"))[2]
                    session.leave()
                assert await asyncio.to_thread(leaving.process.wait, 10) == 0, "it ends as soon as it is empty"
                assert pool.stats()["failures"] == 0
            assert leaving.wait_for("drained")["cut_off"] == 0

    asyncio.run(play())


def test_what_waits_for_a_place_begins_elsewhere_when_the_service_drains():
    async def episode(pool, name):
        async with pool.session() as session:
            await session.reset(task(name))
            await session.step("sleep 0.5")
            assert (await session.step("win"))[2]

    async def play():
        shape = ("--workers", "1", "--envs-per-worker", "1")
        with ServiceProcess(*shape) as leaving, ServiceProcess(*shape) as staying:
            async with remote(leaving.url, staying.url) as pool:
                episodes = [asyncio.ensure_future(episode(pool, str(number % 4))) for number in range(6)]
                await asyncio.sleep(0.2)
                assert leaving.metric("sdar_env_sessions") == 3, "one plays, two wait"
                leaving.signal(signal.SIGTERM)
                await asyncio.gather(*episodes)
                assert pool.stats()["failures"] == 0
            assert await asyncio.to_thread(leaving.process.wait, 10) == 0

    asyncio.run(play())


def test_episodes_longer_than_the_drain_are_cut_off_with_a_reason():
    async def play():
        with ServiceProcess("--workers", "1", "--drain-timeout", "1") as leaving:
            async with remote(leaving.url, patience=Patience(reconnect=30)) as pool:
                async with pool.session() as playing, pool.session() as thinking:
                    _, info = await playing.reset(task())
                    await thinking.reset(task("2"))
                    leaving.signal(signal.SIGTERM)
                    started = time.monotonic()
                    with pytest.raises(EpisodeFailed, match="ended while|was lost"):
                        await playing.step("sleep 30")
                    await asyncio.to_thread(leaving.process.wait, 15)
                    with pytest.raises(EpisodeFailed):
                        await thinking.step("go")
                    assert time.monotonic() - started < 12, "nobody waits for a service that said that it stops"
            assert leaving.process.returncode == 0 and leaving.wait_for("drained")["cut_off"] == 2
            await until(lambda: not is_running(pid_of(info)))

    asyncio.run(play())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_is_left_behind(how):
    async def play():
        with ServiceProcess("--workers", "2", "--drain-timeout", "0.5") as ending:
            async with remote(ending.url) as pool:
                sessions = [pool.session() for _ in range(3)]
                pids = [pid_of((await s.reset(task(str(i))))[1]) for i, s in enumerate(sessions)]
                stuck = asyncio.ensure_future(sessions[0].step("spin"))
                await asyncio.sleep(0.2)
                ending.signal(how)
                assert await asyncio.to_thread(ending.process.wait, 20) == (0 if how == signal.SIGINT else -how)
                await until(lambda: not any(is_running(pid) for pid in pids))
                with pytest.raises(EpisodeFailed):
                    await stuck

    asyncio.run(play())


def test_a_crashed_worker_fails_its_episodes_as_in_process():
    async def play():
        with ServiceProcess("--workers", "2", "--envs-per-worker", "2") as service:
            async with remote(service.url) as pool:
                sessions = [pool.session() for _ in range(4)]
                infos = [(await s.reset(task(str(i))))[1] for i, s in enumerate(sessions)]
                victim = pid_of(infos[0])
                os.kill(victim, signal.SIGKILL)
                for session, info in zip(sessions, infos, strict=True):
                    if pid_of(info) == victim:
                        with pytest.raises(EpisodeFailed, match="worker was lost"):
                            await session.step("go")
                    else:
                        await session.step("go")
                assert (await sessions[0].reset(task()))[0] == "1/None"

    asyncio.run(play())


def test_a_service_whose_workers_cannot_be_replaced_says_so(tmp_path):
    async def play():
        marker = tmp_path / "marker"
        with ServiceProcess("--workers", "1", "--set", f"break_after={marker}") as service:
            pool = RemoteEnvPool("toy", {"break_after": str(marker)}, [service.url], patience=QUICK)
            async with pool, pool.session() as session:
                await session.reset(task())
                with pytest.raises(EpisodeFailed):
                    await session.step("crash")
                with pytest.raises(NoEndpoint, match="toy broke meanwhile"):
                    await asyncio.wait_for(session.reset(task()), 40)
            assert service.get("/health")[0] == service.get("/ready")[0] == 503

    asyncio.run(play())


def test_nothing_at_the_endpoint_is_an_error_at_the_start():
    async def play():
        started = time.monotonic()
        with pytest.raises(EnvError, match=r"cannot be reached.*sdar-env serve.*env\.service\.endpoints"):
            async with remote("ws://127.0.0.1:9", patience=Patience(1, 1, 1)):
                pass
        assert time.monotonic() - started < 5

    asyncio.run(play())


def test_an_endpoint_that_falls_silent_does_not_hold_the_others_up(service):
    """Connections are taken and never answered: each attempt costs its time-out, and only one episode waits for it."""
    slow, connect = 0, 3.0  # seconds; long enough that a machine that is busy for a second is none that waits

    async def player(pool, end):
        nonlocal slow
        while time.monotonic() < end:
            async with pool.session() as session:
                for endpoint in pool._endpoints:
                    endpoint.recent.clear()  # as if every task were a new one
                before = time.monotonic()
                await session.reset(task())
                slow += time.monotonic() - before > 0.9 * connect
                await session.step("win")

    async def play():
        patience = Patience(connect=connect, reconnect=5 * connect, ping=20.0)
        async with Wire(service.port) as wire, remote(wire.url, service.url, patience=patience) as pool:
            wire.silent = True
            wire.cut()
            await asyncio.gather(*(player(pool, time.monotonic() + 5 * connect) for _ in range(8)))
            assert pool.stats()["failures"] == 0
            attempts = wire.connections - 1
            assert attempts >= 2, "it is tried again"
            assert slow <= 4 + attempts, "at first half of them learn it together, later one at a time"

    asyncio.run(play())


def test_a_closed_pool_refuses_and_closing_twice_is_fine(service):
    async def play():
        pool = remote(service.url)
        async with pool, pool.session() as session:
            await session.reset(task())
        await pool.close()
        with pytest.raises(EnvError, match="closed"):
            await pool.session().reset(task())

    asyncio.run(play())


def test_what_answers_but_speaks_something_else_is_refused():
    async def play():
        async def nonsense(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
        try:
            with pytest.raises(EnvError, match="answers 404; is it an environment service"):
                async with remote(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"):
                    pass
        finally:
            server.close()

    asyncio.run(play())


RUDE = ["go", "win", "raise", "print", "", "crash", "\x00", "ü" * 300, '{"op":"close"}', "sleep 0.001"]


async def random_actions(
    pool: RemoteEnvPool, wire: Wire | None, actions: int, players: int, seed: int
) -> tuple[int, int]:
    """Played steps and failed episodes; every episode's answers must be in order."""
    done = failed = 0

    async def player(number: int) -> None:
        nonlocal done, failed
        rng = random.Random(f"{seed}/{number}")
        async with pool.session() as session:
            while done < actions:
                try:
                    name = str(rng.randrange(4))
                    await session.reset(task(name))
                    for step in range(1, rng.randint(2, 60)):
                        weights = [20, 1, 0.2, 0.5, 1, 0.02, 1, 1, 1, 1]
                        action = rng.choices(RUDE, weights)[0]
                        assert (await session.step(action))[0] == f"{name}:{step}:{action}"
                        done += 1
                        if wire is not None and (rng.random() < 0.001 or done == actions // 2):
                            wire.cut()
                except EpisodeFailed as error:
                    assert "ZeroDivisionError" in str(error) or "lost" in str(error), error
                    failed += 1

    await asyncio.gather(*(player(number) for number in range(players)))
    return done, failed


@pytest.mark.parametrize("actions", [3_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_random_actions_over_a_breaking_wire(actions):
    """Environments that raise, crash and print, and connections that break: no crash, no hang, answers in order."""

    async def play():
        with ServiceProcess("--workers", "2", "--envs-per-worker", "8", "--log-level", "info") as service:
            async with Wire(service.port) as wire, remote(wire.url) as pool:
                done, failed = await random_actions(pool, wire, actions, players=16, seed=actions)
                assert done >= actions and failed == pool.stats()["failures"]
                assert wire.connections > 1
            assert service.metric("sdar_env_sessions") == 0
            assert service.get("/ready")[0] == 200

    asyncio.run(asyncio.wait_for(play(), 600))


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return int(file.read().rpartition(")")[2].split()[1])
