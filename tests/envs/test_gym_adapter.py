"""gymnasium's own checks on our environments, and equality with what they wrap."""

from __future__ import annotations

import random
import warnings

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env
from sdar_envs import registry
from sdar_envs.adapters.gym import AnyText, GymTextEnv
from sdar_envs.alfworld.generate import generate_games
from sdar_envs.alfworld.knobs import Knobs
from sdar_envs.base import EnvError

NAME = "sdar_envs.adapters.gym:sdar/alfworld-v0"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("games")
    generate_games(folder, "train", 4, seed=1, knobs=Knobs(receptacles=(3, 5), objects=(3, 5)))
    return {"data_root": str(folder), "max_steps": 20}


def test_gymnasiums_own_checker_is_content(config):
    env = gymnasium.make(NAME, config=config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_an_episode_is_the_one_of_the_environment_itself(config):
    family = registry.get("alfworld")
    env, own = gymnasium.make(NAME, config=config), family.make_env(config)
    for task in family.tasks(config, "train"):
        rng = random.Random(task.id)
        shown = env.reset(options={"task": task.id})
        assert shown == own.reset(task=task)
        done = False
        while not done:
            action = rng.choice(shown[-1]["admissible_actions"])
            shown = env.step(action)
            assert shown == own.step(action)
            done = shown[2] or shown[3]
    env.close()


def test_the_same_seed_draws_the_same_task_and_random_actions_are_admissible(config):
    env = gymnasium.make(NAME, config=config, render_mode="ansi")
    drawn = {seed: env.reset(seed=seed)[1]["task_id"] for seed in range(12)}
    assert len(set(drawn.values())) > 1
    assert all(env.reset(seed=seed)[1]["task_id"] == name for seed, name in drawn.items())
    observation, info = env.reset(seed=0)
    assert env.render() == observation
    for _ in range(5):
        action = env.action_space.sample()
        assert action in info["admissible_actions"]
        *_, info = env.step(action)
    env.close()


def test_what_does_not_exist_is_refused(config):
    with pytest.raises(EnvError, match="unknown environment 'chess'; known: .*alfworld"):
        GymTextEnv("chess")
    with pytest.raises(EnvError, match="render_mode='human' is unknown"):
        GymTextEnv("alfworld", config, render_mode="human")
    env = GymTextEnv("alfworld", config)
    with pytest.raises(EnvError, match="no task 'nowhere' among the 4"):
        env.reset(options={"task": "nowhere"})
    with pytest.raises(EnvError, match="unknown reset options: taks; known: task"):
        env.reset(options={"taks": "x"})
    env.close()
    assert AnyText().sample() == "" and "text" in AnyText() and 3 not in AnyText()
