"""The worker pool under real failures: kill -9, crashes, endless calls, cancelled callers, a dead parent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from sdar_envs import registry
from sdar_envs.base import EnvError, EnvUnreachable, NoPlace, TaskRef
from sdar_envs.pool import EnvPool, EpisodeFailed

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))
registry.register("toy", "toy_env_family")


def task(name: str = "a") -> TaskRef:
    return TaskRef(name, "toy", "train")


def toy_pool(workers: int = 2, envs: int = 2, config: dict | None = None, **deadlines: float) -> EnvPool:
    return EnvPool("toy", config or {}, workers, envs, **{"step_timeout": 20.0, "reset_timeout": 20.0, **deadlines})


def pid_of(info: dict) -> int:
    return int(info["task_description"])


def is_running(pid: int) -> bool:
    """Whether a thread of the process exists that is not merely waiting to be collected."""
    try:
        threads = [thread / "stat" for thread in Path(f"/proc/{pid}/task").iterdir()]
        return len(threads) > 1 or threads[0].read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return False


async def until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "gave up waiting"
        await asyncio.sleep(0.02)


def test_an_episode_goes_through_unchanged():
    async def play():
        async with toy_pool(workers=1) as pool, pool.session() as session:
            observation, info = await session.reset(task("x"), seed=3)
            assert (observation, info["task_id"], info["step"]) == ("x/3", "x", 0)
            assert (await session.step("look ünïcode \n"))[:4] == ("x:1:look ünïcode \n", 0.0, False, False)
            observation, reward, terminated, truncated, info = await session.step("win")
            assert (reward, terminated, truncated, info["won"], info["step"]) == (10.0, True, False, True, 2)
            assert pool.stats() == {"episodes": 1, "failures": 0, "restarts": 0, "workers": 1, "busy": 1}
        return pid_of(info)

    assert not is_running(asyncio.run(play()))


def test_output_of_an_environment_does_not_disturb_the_protocol():
    async def play():
        async with toy_pool(workers=1) as pool, pool.session() as session:
            await session.reset(task())
            assert (await session.step("print"))[0] == "a:1:print"

    asyncio.run(play())


@pytest.mark.parametrize("how", ["kill -9", "crash", "hang", "spin"])
def test_a_lost_worker_fails_its_own_episodes_only(how):
    async def play():
        async with toy_pool(step_timeout=1.0) as pool:
            sessions = [pool.session() for _ in range(4)]
            infos = [(await s.reset(task(str(i))))[1] for i, s in enumerate(sessions)]
            victim = pid_of(infos[0])
            if how == "kill -9":
                os.kill(victim, signal.SIGKILL)
            with pytest.raises(EpisodeFailed, match="lost"):
                await sessions[0].step("go" if how == "kill -9" else how)
            hit = [i for i, info in enumerate(infos) if pid_of(info) == victim]
            assert len(hit) == 2, "two episodes share the worker"
            for i, session in enumerate(sessions):
                if i in hit:
                    for _ in range(2):
                        with pytest.raises(EpisodeFailed):
                            await session.step("go")
                else:
                    assert (await session.step("go"))[0] == f"{i}:1:go"
            await until(lambda: pool.stats()["workers"] == 2)
            assert pool.stats()["restarts"] == 1 and pool.stats()["failures"] == 2
            assert not is_running(victim)
            _, info = await sessions[0].reset(task("again"))  # the replacement serves
            assert pid_of(info) not in {pid_of(old) for old in infos}

    asyncio.run(play())


def test_a_worker_that_died_idle_is_replaced_without_a_failed_episode():
    async def play():
        async with toy_pool(workers=1, envs=1) as pool:
            async with pool.session() as session:
                _, info = await session.reset(task())
            os.kill(pid_of(info), signal.SIGKILL)
            await until(lambda: not is_running(pid_of(info)))
            async with pool.session() as session:
                await session.reset(task())
            assert pool.stats()["failures"] == 0 and pool.stats()["restarts"] == 1

    asyncio.run(play())


def test_an_episode_that_had_not_begun_starts_elsewhere_when_its_worker_is_lost():
    async def play():
        async with toy_pool(workers=1, step_timeout=0.7) as pool, pool.session() as stuck, pool.session() as waiting:
            await stuck.reset(task("stuck"))
            hanging = asyncio.ensure_future(stuck.step("hang"))
            await asyncio.sleep(0.1)
            assert (await waiting.reset(task("waiting")))[0] == "waiting/None"
            with pytest.raises(EpisodeFailed, match=r"'step' within 0\.7 s"):
                await hanging
            assert pool.stats() | {"workers": 1} == {
                "episodes": 2, "failures": 1, "restarts": 1, "workers": 1, "busy": 1
            }  # fmt: skip

    asyncio.run(play())


def test_a_cancelled_episode_gives_its_place_back_when_its_call_has_ended():
    async def play():
        async def episode():
            async with pool.session() as session:
                await session.reset(task("first"))
                await session.step("sleep 0.6")

        async with toy_pool(workers=1, envs=1) as pool:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(episode(), 0.3)
            assert pool.stats()["busy"] == 1
            async with pool.session() as session:
                assert (await session.reset(task("second")))[0] == "second/None"
            await until(lambda: pool.stats()["busy"] == 0)
            assert pool.stats()["restarts"] == 0

    asyncio.run(play())


def test_a_reset_has_its_own_deadline():
    async def play():
        async with toy_pool(workers=1, reset_timeout=0.5) as pool, pool.session() as session:
            with pytest.raises(EpisodeFailed, match=r"'reset' within 0\.5 s"):
                await session.reset(task("hang"))
            assert (await session.reset(task("fine")))[0] == "fine/None"

    asyncio.run(play())


def test_waiting_for_a_busy_worker_does_not_count_against_the_deadline():
    async def play():
        async with toy_pool(workers=1, envs=4, step_timeout=1.0) as pool:
            sessions = [pool.session() for _ in range(4)]
            for session in sessions:
                await session.reset(task())
            await asyncio.gather(*(session.step("sleep 0.5") for session in sessions))  # 2 s in all
            assert pool.stats()["failures"] == 0

    asyncio.run(play())


def test_an_episode_past_its_deadline_fails_and_the_worker_stays():
    async def play():
        async with toy_pool(workers=1, episode_timeout=0.3) as pool, pool.session() as session:
            await session.reset(task())
            await asyncio.sleep(0.4)
            with pytest.raises(EpisodeFailed, match=r"longer than 0\.3 s"):
                await session.step("go")
            assert pool.stats()["restarts"] == 0
            await session.reset(task())
            await session.step("go")

    asyncio.run(play())


def test_an_exception_in_the_environment_fails_that_episode_and_keeps_the_worker():
    async def play():
        async with toy_pool(workers=1) as pool, pool.session() as one, pool.session() as other:
            _, before = await one.reset(task("one"))
            await other.reset(task("other"))
            with pytest.raises(EpisodeFailed, match="ZeroDivisionError: asked for"):
                await one.step("raise")
            assert (await other.step("go"))[0] == "other:1:go"
            _, after = await one.reset(task("one"))
            assert pid_of(before) == pid_of(after) and pool.stats()["restarts"] == 0

    asyncio.run(play())


def test_a_cancelled_caller_leaves_the_answers_in_order():
    async def play():
        async with toy_pool(workers=1, envs=2) as pool, pool.session() as session, pool.session() as other:
            await session.reset(task("a"))
            await other.reset(task("b"))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(session.step("sleep 0.4"), 0.1)
            assert (await other.step("go"))[0] == "b:1:go"
            assert (await session.step("go"))[0] == "a:2:go"

    asyncio.run(play())


def test_episodes_of_one_task_share_a_worker_and_others_spread():
    async def play():
        async with toy_pool(workers=2, envs=4) as pool:
            sessions = [pool.session() for _ in range(8)]
            infos = [(await s.reset(task("ab"[i % 2])))[1] for i, s in enumerate(sessions)]
            by_task = [{pid_of(info) for info in infos if info["task_id"] == name} for name in "ab"]
            assert [len(pids) for pids in by_task] == [1, 1] and by_task[0] != by_task[1]

    asyncio.run(play())


def test_reset_waits_for_a_free_place():
    async def play():
        async with toy_pool(workers=1, envs=1) as pool:
            first = pool.session()
            await first.reset(task("first"))
            second = pool.session()
            waiting = asyncio.ensure_future(second.reset(task("second")))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            await first.__aexit__(None, None, None)
            assert (await asyncio.wait_for(waiting, 10))[0] == "second/None"

    asyncio.run(play())


def test_a_family_that_cannot_be_made_is_refused_at_the_start():
    async def play():
        with pytest.raises(EnvError, match="toy is broken on purpose"):
            await toy_pool(config={"broken": True}).start()

    asyncio.run(play())


def test_a_pool_that_cannot_start_fails_no_episode_but_whoever_trains():
    """Episodes that fail are counted as lost and training goes on; without any worker it must not."""

    async def play():
        pool = toy_pool(config={"broken": True})
        for _ in range(2):
            with pytest.raises(NoPlace, match="toy is broken on purpose"):
                await pool.session().reset(task())

    asyncio.run(play())


def test_something_that_is_away_is_told_from_a_mistake():
    async def play():
        with pytest.raises(EnvUnreachable, match="toy's engine is away"):
            await toy_pool(config={"away": True}).start()

    asyncio.run(play())


def test_while_a_worker_is_left_lost_ones_are_tried_again_and_again(tmp_path):
    async def play():
        off = tmp_path / "off"
        async with (
            toy_pool(workers=2, envs=1, config={"off": str(off)}) as pool,
            pool.session() as one,
            pool.session() as two,
        ):
            await one.reset(task())
            await two.reset(task())
            off.touch()
            with pytest.raises(EpisodeFailed):
                await one.step("crash")
            await two.step("go")
            await asyncio.sleep(4)
            assert pool.stats()["workers"] == 1 and not pool.broken
            off.unlink()
            assert (await asyncio.wait_for(one.reset(task("b")), 30))[0] == "b/None"
            assert pool.stats()["workers"] == 2 and pool.stats()["restarts"] == 1

    asyncio.run(play())


def test_workers_that_cannot_be_replaced_raise_instead_of_waiting(tmp_path):
    async def play():
        config = {"break_after": str(tmp_path / "marker")}
        async with toy_pool(workers=1, envs=1, config=config) as pool, pool.session() as session:
            await session.reset(task())
            with pytest.raises(EpisodeFailed):
                await session.step("crash")
            with pytest.raises(NoPlace, match="no environment worker can be started: .*toy broke meanwhile"):
                await asyncio.wait_for(session.reset(task()), 60)

    asyncio.run(play())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"family": "nowhere"}, "unknown environment 'nowhere'; known: .*alfworld"),
        ({"workers": 0}, "at least 1"),
        ({"envs_per_worker": 0}, "at least 1"),
        ({"step_timeout": 0.0}, "positive"),
        ({"config": {"x": object()}}, "plain values"),
    ],
)
def test_bad_arguments_are_refused_before_anything_starts(arguments, message):
    with pytest.raises(EnvError, match=message):
        EnvPool(**{"family": "toy", "config": {}, **arguments})


def test_a_closed_pool_refuses_and_closing_twice_is_fine():
    async def play():
        pool = toy_pool(workers=1)
        async with pool:
            session = pool.session()
            _, info = await session.reset(task())
        await pool.close()
        pool.kill()
        assert not is_running(pid_of(info))
        with pytest.raises(NoPlace, match="closed"):
            await pool.session().reset(task())
        with pytest.raises(EpisodeFailed):
            await session.step("go")

    asyncio.run(play())


def test_kill_ends_stuck_workers_without_an_event_loop():
    async def begin():
        pool = toy_pool(workers=2)
        await pool.start()
        session = pool.session()
        _, info = await session.reset(task())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(session.step("hang"), 0.2)
        return pool, pid_of(info)

    loop = asyncio.new_event_loop()
    pool, pid = loop.run_until_complete(begin())
    assert is_running(pid)
    pool.kill()
    assert not is_running(pid)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


PARENT = """
import asyncio, sys
from sdar_envs import registry
from sdar_envs.base import TaskRef
from sdar_envs.pool import EnvPool

async def main():
    registry.register("toy", "toy_env_family")
    pool = EnvPool("toy", {}, workers=3, envs_per_worker=1)
    await pool.start()
    sessions = [pool.session() for _ in range(3)]
    for number, session in enumerate(sessions):
        _, info = await session.reset(TaskRef(str(number), "toy", "train"))
        print(info["task_description"], flush=True)
    how = sys.argv[1]
    if how == "return":
        return
    if how == "raise":
        raise RuntimeError("the run failed")
    calls = [asyncio.ensure_future(s.step(a)) for s, a in zip(sessions, ("hang", "spin"))]  # the third is idle
    await asyncio.sleep(0.3)
    print("ready", flush=True)
    await asyncio.gather(*calls)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["kill -9", "interrupt", "raise", "return"])
def test_nothing_is_left_when_the_parent_ends(how, tmp_path):
    """Idle, sleeping and spinning workers end with their parent, and the temp folder is as empty as before."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    shared_before = shared_memory()
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background shells ignore it
    )
    try:
        lines = [parent.stdout.readline().strip() for _ in range(3)]
        pids = [int(line) for line in lines]
        if how in ("kill -9", "interrupt"):
            assert parent.stdout.readline().strip() == "ready"
            assert all(is_running(pid) for pid in pids)
            parent.send_signal(signal.SIGKILL if how == "kill -9" else signal.SIGINT)
        parent.wait(timeout=20)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    asyncio.run(until(lambda: not any(is_running(pid) for pid in pids), 10))
    assert list(tmp_path.iterdir()) == []
    assert not {name for name in shared_memory() - shared_before if any(str(pid) in name for pid in pids)}


def shared_memory() -> set[str]:
    folder = Path("/dev/shm")
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
