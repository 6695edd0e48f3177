"""OpenEnv's own server and client around our pool; needs the extra `openenv`, which brings a hundred packages."""

from __future__ import annotations

import socket
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("openenv", reason="install sdar-envs[openenv] to run this; it is left out of the test set-up")
import uvicorn  # noqa: E402
from openenv.core import GenericEnvClient  # noqa: E402
from sdar_envs import registry  # noqa: E402
from sdar_envs.adapters.openenv import make_app  # noqa: E402
from sdar_envs.base import EnvError  # noqa: E402

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))
registry.register("toy", "toy_env_family")


@pytest.fixture(scope="module")
def address():
    app = make_app("toy", {}, splits=["train", "valid"], workers=1, envs_per_worker=2, step_timeout=1.0)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


def test_an_episode_through_openenvs_own_client(address):
    with GenericEnvClient(base_url=address).sync() as env:
        shown = env.reset(task="2", seed=7)
        assert shown.observation["text"] == "2/7" and shown.observation["admissible_actions"] == ["win"]
        assert not shown.done and shown.reward is None
        shown = env.step({"action": "look ünïcode"})
        assert shown.observation["text"] == "2:1:look ünïcode" and shown.reward == 0.0 and not shown.done
        shown = env.step({"action": "win"})
        assert shown.done and shown.reward == 10.0 and shown.observation["won"] and not shown.observation["truncated"]
        assert env.state()["step_count"] == 2
        assert env.reset(split="valid", index=3).observation["task_id"] == "3"


def test_sessions_are_apart_and_a_failed_episode_is_told(address):
    with GenericEnvClient(base_url=address).sync() as one, GenericEnvClient(base_url=address).sync() as other:
        one.reset(task="0")
        other.reset(task="1")
        assert one.step({"action": "go"}).observation["text"] == "0:1:go"
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            one.step({"action": "raise"})
        assert other.step({"action": "go"}).observation["text"] == "1:1:go"
        with pytest.raises(RuntimeError, match="no task 'nowhere' among the 4"):
            one.reset(task="nowhere")
        assert one.reset(task="3").observation["task_id"] == "3"


def test_places_come_back(address):
    for _ in range(3):
        with GenericEnvClient(base_url=address).sync() as one, GenericEnvClient(base_url=address).sync() as other:
            one.reset(task="0")
            other.reset(task="1")


def test_what_cannot_be_served_is_refused():
    with pytest.raises(EnvError, match="at least one split"):
        make_app("toy", {}, splits=[])
    with pytest.raises(EnvError, match="unknown environment"):
        make_app("chess", {}, splits=["train"])
