"""ALFWorld through the environment contract: rewards, limits, info, configuration, and the real pool."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from sdar_envs import registry
from sdar_envs.alfworld.env import AlfworldEnv, task_description
from sdar_envs.alfworld.games import read_game
from sdar_envs.alfworld.generate import generate_games
from sdar_envs.base import EnvError, PromptFormat
from sdar_envs.pool import EnvPool, EpisodeFailed


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("games")
    generate_games(root, "train", 6, seed=5)
    return root


@pytest.fixture(scope="module")
def family():
    return registry.get("alfworld")


@pytest.fixture(scope="module")
def tasks(family, root):
    return family.tasks({"data_root": str(root)}, "train")


def test_a_won_episode_pays_once_at_its_end(family, tasks):
    env = family.make_env({"success_reward": 3.0})
    for task in tasks[:3]:
        observation, info = env.reset(task=task)
        assert "Your task is to: " + info["task_description"] in observation
        assert (info["task_id"], info["task_type"], info["won"], info["step"]) == (task.id, task.task_type, False, 0)
        plan = family.reference({}, task)
        for number, command in enumerate(plan, start=1):
            assert command in info["admissible_actions"]
            observation, reward, terminated, truncated, info = env.step(command)
            last = number == len(plan)
            assert (reward, terminated, truncated, info["won"], info["step"]) == (3.0 * last, last, False, last, number)
        with pytest.raises(EnvError, match="call reset"):
            env.step("look")


def test_an_episode_is_truncated_at_the_step_limit(family, tasks):
    env = family.make_env({"max_steps": 3})
    for _ in range(2):
        env.reset(task=tasks[0])
        ends = [env.step(command)[1:4] for command in ("look", "no such command", "inventory")]
        assert ends == [(0.0, False, False), (0.0, False, False), (0.0, False, True)]
        with pytest.raises(EnvError, match="call reset"):
            env.step("look")


def test_winning_on_the_last_step_is_no_truncation(family, tasks):
    plan = read_game(tasks[0].path)["walkthrough"]
    env = family.make_env({"max_steps": len(plan)})
    env.reset(task=tasks[0])
    assert [env.step(command)[1:4] for command in plan][-1] == (10.0, True, False)


def test_a_misunderstood_command_costs_a_step_and_changes_nothing(family, tasks):
    env = family.make_env({})
    _, before = env.reset(task=tasks[0])
    observation, reward, *_, after = env.step("jump")
    assert (observation, reward) == ("Nothing happens.", 0.0)
    assert after == {**before, "step": 1}


def test_stepping_before_reset_and_after_close_is_refused(family, tasks):
    env = family.make_env({})
    with pytest.raises(EnvError, match="call reset"):
        env.step("look")
    env.close()
    env.close()
    with pytest.raises(EnvError, match="closed"):
        env.reset(task=tasks[0])


def test_a_game_that_vanished_is_named(family, tasks, tmp_path):
    from dataclasses import replace

    gone = replace(tasks[0], path=str(tmp_path / "game.tw-pddl"))
    env = family.make_env({})
    with pytest.raises(EnvError, match=r"game\.tw-pddl.*cannot be read"):
        env.reset(task=gone)
    env.reset(task=tasks[0])
    assert env.step("look")[4]["step"] == 1


@pytest.mark.parametrize("intro", ["", "You are in a room.", "Your task is to:  "])
def test_an_intro_without_a_task_is_refused(intro):
    with pytest.raises(EnvError, match="names no task"):
        task_description(intro)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"engin": "fast"}, "unknown keys under env.alfworld: engin; known: .*engine"),
        ({"engine": "turbo"}, "known: fast, stock"),
        ({"max_steps": 0}, "max_steps"),
        ({"max_steps": "50"}, "max_steps"),
        ({"success_reward": 0.0}, "success_reward"),
        ({"success_reward": float("nan")}, "success_reward"),
    ],
)
def test_a_wrong_configuration_is_refused(family, config, message):
    with pytest.raises(EnvError, match=message):
        family.make_env(config)


def test_a_data_root_is_needed(family):
    with pytest.raises(EnvError, match="data_root is not set"):
        family.tasks({}, "train")


def test_the_format_is_made_from_the_configuration(family):
    assert isinstance(family.make_format({"thinking": False, "history_length": 3}), PromptFormat)


def test_importing_the_family_is_light():
    code = (
        "import sys; from sdar_envs import registry; f = registry.get('alfworld'); f.make_format({})\n"
        "print(sorted({'textworld', 'alfworld', 'fast_downward', 'numpy', 'torch'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_many_games_at_once_through_the_pool(root, tasks):
    """Two workers, twelve episodes, interleaved; every walkthrough wins and a killed worker fails only its own."""

    async def episode(pool, task):
        async with pool.session() as session:
            await session.reset(task)
            total = 0.0
            for command in read_game(task.path)["walkthrough"]:
                _, reward, terminated, _, _ = await session.step(command)
                total += reward
            return total, terminated

    async def play():
        async with EnvPool("alfworld", {"data_root": str(root)}, workers=2, envs_per_worker=3) as pool:
            results = await asyncio.gather(*(episode(pool, task) for task in tasks * 2))
            assert results == [(10.0, True)] * 12
            async with pool.session() as session:
                await session.reset(tasks[0])
                assert all("libdownward.so" not in Path(f"/proc/{pid}/maps").read_text() for pid in pids_of(pool))
                for worker in pool._workers:
                    worker.process.kill()
                    worker.process.wait()
                with pytest.raises(EpisodeFailed):
                    await session.step("look")
            assert await episode(pool, tasks[0]) == (10.0, True)

    asyncio.run(play())


def pids_of(pool):
    return [worker.process.pid for worker in pool._workers]


def test_env_can_be_made_without_configuration():
    env = AlfworldEnv()
    with pytest.raises(EnvError):
        env.step("look")
