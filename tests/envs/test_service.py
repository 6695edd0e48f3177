"""A service in a process of its own, played through the pool client: what works, and what it refuses."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys

import pytest
from sdar_envs.base import EnvError, TaskRef
from sdar_envs.pool import EnvPool, EpisodeFailed
from sdar_envs.service.client import Patience, RemoteEnvPool
from service_process import TOKEN, ServiceProcess, task


def remote(*services: ServiceProcess, token: str | None = None, config: dict | None = None) -> RemoteEnvPool:
    return RemoteEnvPool("toy", config or {}, [service.url for service in services], token)


@pytest.fixture(scope="module")
def service():
    with ServiceProcess("--workers", "1", "--envs-per-worker", "4") as process:
        yield process


ACTIONS = ["go", "ünïcode \n 漢字 \U0001f600 \x00", "", "x" * 60_000, '{"op": "close"}', "print", "win"]


def test_episodes_are_those_of_the_pool_in_process(service):
    async def play(pool):
        seen = []
        async with pool, pool.session() as session:
            for seed in (None, 3):
                observation, info = await session.reset(task(), seed)
                seen.append((observation, {**info, "task_description": ""}))
                for action in ACTIONS:
                    *answer, info = await session.step(action)
                    seen.append((*answer, {**info, "task_description": ""}))
                with pytest.raises(EpisodeFailed) as failure:
                    await session.step("raise")
                with pytest.raises(EpisodeFailed):
                    await session.step("go")
                seen.append(str(failure.value))
            assert pool.stats() | {"workers": 0} == {
                "episodes": 2, "failures": 2, "restarts": 0, "workers": 0, "busy": 1
            }  # fmt: skip
        return seen

    ours = asyncio.run(play(EnvPool("toy", {}, workers=1, envs_per_worker=1)))
    assert asyncio.run(play(remote(service))) == ours
    assert len(ours) == 2 * (2 + len(ACTIONS))


def test_sessions_beside_each_other_do_not_mix(service):
    async def episode(pool, number):
        rng = random.Random(number)
        async with pool.session() as session:
            observation, _ = await session.reset(task(str(number % 4)), number)
            assert observation == f"{number % 4}/{number}"
            for step in range(1, rng.randint(2, 20)):
                action = f"{number} {rng.random()}"
                assert (await session.step(action))[0] == f"{number % 4}:{step}:{action}"

    async def play():
        async with remote(service) as pool:  # 4 places: the others wait for theirs
            await asyncio.gather(*(episode(pool, number) for number in range(40)))
            assert pool.stats()["episodes"] == 40 and pool.stats()["failures"] == 0

    asyncio.run(play())
    assert service.metric("sdar_env_sessions") == service.metric("sdar_env_places_busy") == 0


def test_an_action_that_is_no_text_fails_its_episode_only(service):
    async def play():
        async with remote(service) as pool, pool.session() as session:
            await session.reset(task())
            for action, says in (("\ud800", "no text that can be sent"), ("x" * 70_000, "takes at most 65536")):
                with pytest.raises(EpisodeFailed, match=says):
                    await session.step(action)
                assert (await session.reset(task()))[0] == "1/None"

    asyncio.run(play())


def test_a_cancelled_step_is_played_and_the_next_follows_it(service):
    async def play():
        async with remote(service) as pool, pool.session() as session:
            await session.reset(task())
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(session.step("sleep 0.3"), 0.1)
            assert (await session.step("go"))[0] == "1:2:go"

    asyncio.run(play())


def test_a_cancelled_episode_gives_its_place_back(service):
    async def play():
        async with remote(service) as pool:
            sessions = [pool.session() for _ in range(4)]
            for session in sessions:
                await session.reset(task())
            with pytest.raises(asyncio.TimeoutError):
                async with pool.session() as fifth:
                    await asyncio.wait_for(fifth.reset(task()), 0.2)  # all places are taken
            for session in sessions:
                session.leave()
            async with pool.session() as session:
                await asyncio.wait_for(session.reset(task()), 5)
        assert pool.stats()["busy"] == 0

    asyncio.run(play())
    assert service.metric("sdar_env_sessions") == 0


def test_health_readiness_and_metrics(service):
    assert service.get("/health") == (200, '{"status":"ok","env":"toy"}')
    assert service.get("/ready")[0] == 200
    assert service.metric("sdar_env_places") == 4 and service.metric("sdar_env_workers") == 1
    assert service.get("/docs")[0] == service.get("/openapi.json")[0] == 404
    code = "import sys; from sdar_envs.service.cli import main; sys.exit(main(sys.argv[1:]))"
    for port, status in ((service.port, 0), (1, 1)):
        done = subprocess.run([sys.executable, "-c", code, "ready", f"http://127.0.0.1:{port}"], capture_output=True)
        assert done.returncode == status


def test_other_settings_other_tasks_and_other_environments_are_refused(service, tmp_path):
    async def start(pool):
        try:
            await pool.start()
        finally:
            await pool.close()

    with pytest.raises(EnvError, match=r"other settings: speed is '<absent>' there and 3 here.*--set"):
        asyncio.run(start(remote(service, config={"speed": 3})))
    with pytest.raises(EnvError, match="plays toy, this run alfworld"):
        asyncio.run(start(RemoteEnvPool("alfworld", {}, [service.url])))

    async def compare():
        async with remote(service) as pool:
            await pool.check_tasks("train", [task(str(number)) for number in range(4)])
            with pytest.raises(EnvError, match="other tasks in split 'train': 4 there, 3 here"):
                await pool.check_tasks("train", [task(str(number)) for number in range(3)])
            with pytest.raises(EnvError, match="no task 'nowhere' among the 4"):
                await pool.session().reset(task("nowhere"))

    asyncio.run(compare())


def test_a_mistake_in_an_environments_code_is_told_and_nobody_waits_for_it(service):
    async def play():
        async with remote(service) as pool, pool.session() as session:
            with pytest.raises(EnvError, match="internal error of the service: KeyError"):
                await asyncio.wait_for(pool.check_tasks("broken", []), 10)
            with pytest.raises(EpisodeFailed, match="internal error of the service: KeyError"):
                await asyncio.wait_for(session.reset(TaskRef("1", "toy", "broken")), 10)
            assert (await session.reset(task()))[0] == "1/None"

    asyncio.run(play())
    assert service.metric("sdar_env_sessions") == 0
    assert "a mistake in an environment" in service.wait_for("internal error")["exception"]


def test_without_the_token_nobody_plays():
    async def play(token):
        pool = RemoteEnvPool("toy", {}, [service.url], token)
        async with pool, pool.session() as session:
            return (await session.reset(task()))[0]

    with ServiceProcess("--workers", "1", token=TOKEN) as service:
        assert asyncio.run(play(TOKEN)) == "1/None"
        for wrong in (None, TOKEN[:-1], TOKEN + "x", TOKEN.upper()):
            with pytest.raises(EnvError, match="wants another token"):
                asyncio.run(play(wrong))
            assert service.get("/metrics", wrong)[0] == 401
        assert service.get("/metrics", TOKEN)[0] == 200
        assert service.get("/health")[0] == service.get("/ready")[0] == 200
        service.signal(signal.SIGTERM)
        assert service.process.wait(20) == 0
        said = str(service.lines)
    assert TOKEN not in said and TOKEN.upper() not in said and "connection without the token" in said


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_tls_carries_sessions_and_an_unknown_certificate_does_not(tmp_path, monkeypatch):
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=here -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*make.split(), "-out", certificate, "-keyout", key], check=True, capture_output=True)

    async def play():
        pool = RemoteEnvPool("toy", {}, [f"wss://127.0.0.1:{service.port}"], TOKEN, Patience(5, 0.5, 5))
        async with pool, pool.session() as session:
            return (await session.reset(task()))[0]

    with ServiceProcess("--tls-certificate", certificate, "--tls-key", key, token=TOKEN) as service:
        with pytest.raises(EnvError, match="certificate verify failed"):
            asyncio.run(play())
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        assert asyncio.run(play()) == "1/None"


@pytest.mark.parametrize(
    ("arguments", "token", "says"),
    [
        (["--host", "0.0.0.0"], None, "0.0.0.0 can be reached from other machines, and no token is set"),
        (["--host", "::"], None, "no token is set"),
        ([], "short", "fewer than 16 characters"),
        ([], "with spaces in the middle", "without spaces"),
        (["--token-file", "/nowhere/token"], None, "cannot be read"),
        (["--tls-key", "x"], None, "go together"),
        (["--workers", "0"], None, "at least 1"),
        (["--max-waiting", "0"], None, "max_waiting must be positive"),
        (["--idle-timeout", "-1"], None, "idle_timeout must be positive"),
        (["--set", "broken=true"], None, "toy is broken on purpose"),
        (["--set", "broken"], None, "not KEY=VALUE"),
        (["--config", "/nowhere.json"], None, "cannot be read"),
        (["--host", "192.0.2.1"], "0123456789abcdefgh", "cannot be listened on"),
    ],
)
def test_what_cannot_be_served_is_refused_at_the_start(arguments, token, says):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    if token is not None:
        environment["SDAR_ENV_TOKEN"] = token
    command = [sys.executable, "-m", "sdar_envs.service.cli", "serve", "toy", "--module", "toy=toy_env_family"]
    done = subprocess.run(
        [*command, "--port", "0", *arguments], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert says in last and last.startswith("sdar-env: ") and (token is None or token not in done.stderr)


@pytest.mark.parametrize(
    ("endpoints", "says"),
    [
        ([], "at least one"),
        (["ws://127.0.0.1:1"] * 2, "only once"),
        (["http://127.0.0.1:8400"], "not of the form ws://host:port"),
        (["ws://127.0.0.1"], "not of the form"),
        (["ws://127.0.0.1:99999"], "(?i)port"),
        (["ws://user:secret@127.0.0.1:8400"], "^(?!.*secret).*nothing more"),
        (["ws://127.0.0.1:8400/v1/play"], "nothing more"),
    ],
)
def test_bad_endpoints_are_refused_before_anything_starts(endpoints, says):
    with pytest.raises(EnvError, match=says):
        RemoteEnvPool("toy", {}, endpoints)
