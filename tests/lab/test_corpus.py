"""Lessons come from the real engine, differ between conditions in the prompt alone, and are corrupted as asked."""

from random import Random

import pytest
from sdar_envs.alfworld.games import TASK_TYPES

from sdar_verl.lab import envs
from sdar_verl.lab.corpus import lessons, walk
from sdar_verl.lab.envs.base import World
from sdar_verl.lab.play import play
from sdar_verl.lab.prompts import SkillShelf
from sdar_verl.skills import open_store

LAB = envs.get("alfworld")
CONFIG = LAB.config
SHARES = {"right": 1.0, "none": 1.5, "wrong": 0.5}


@pytest.fixture(scope="module")
def games(tmp_path_factory):
    return LAB.worlds(tmp_path_factory.mktemp("games"), "train", 12, 0, CONFIG.knobs)[0].tasks


@pytest.fixture(scope="module")
def env():
    return LAB.make_env(CONFIG, World([]))


@pytest.fixture(scope="module")
def shelf():
    return SkillShelf(open_store(CONFIG.skills), "alfworld")


@pytest.fixture(scope="module")
def states(games, env):
    prompt_format = LAB.make_format(CONFIG)
    return [s for game in games for s in walk(LAB, env, prompt_format, game, (0.0, 0.5), Random(game.id))]


def test_states_are_different_and_their_labels_admissible(states):
    assert len({(s.task.id, s.prompt) for s in states}) == len(states)
    assert all(s.expert in s.can and "help" not in s.can for s in states)
    assert all(f"'{action}'" in s.prompt for s in states for action in s.can)
    assert any("Nothing happens." in s.prompt for s in states)


def test_following_the_labels_wins(states, games, env):
    """The labels depend on the prompt alone, so looking them up by prompt must solve every game."""
    prompt_format = LAB.make_format(CONFIG)
    labels = {(s.task.id, s.prompt): s.expert for s in states}

    def choose(running):
        return [LAB.answer(labels[task.id, prompt_format.render(view)]) for task, view in running]

    for game in games:
        (outcome,) = play([game], [env], prompt_format, choose)
        assert outcome.won and outcome.valid == outcome.admissible == outcome.steps == len(outcome.actions)


def test_walks_repeat(games, env):
    prompt_format = LAB.make_format(CONFIG)
    one, two = (walk(LAB, env, prompt_format, games[0], (0.5,), Random(4)) for _ in range(2))
    assert one == two


def test_skills_are_followed_for_what_they_say(states, shelf):
    found = lessons(states * 3, shelf, SHARES, wrong_plan=1.0, random_action=1.0, seed=0)
    said = [(x, [skill.task_type for skill in x.skills if skill.task_type]) for x in found]
    for lesson, types in said:
        if lesson.condition == "none":
            assert not lesson.skills
        else:
            assert len(types) == 1 and lesson.action == lesson.state.plans[types[0]]
            assert (types[0] == lesson.state.task.task_type) == (lesson.condition == "right")
    wrong = [(x, types[0]) for x, types in said if x.condition == "wrong"]
    assert {types for _, types in wrong} == set(TASK_TYPES)
    assert any(x.action != x.state.expert for x, _ in wrong)


def test_shares_of_conditions_and_of_corrupted_labels(states, shelf):
    many = states * 20
    found = lessons(many, shelf, SHARES, wrong_plan=0.4, random_action=0.5, seed=0)
    for condition, share in SHARES.items():
        assert abs(sum(x.condition == condition for x in found) / len(many) - share) < 0.05
    assert all(x.action in x.state.can for x in found)

    def kept(state):
        others = [state.plans[plan] == state.expert for plan in TASK_TYPES if plan != state.task.task_type]
        return 0.5 / len(state.can) + 0.5 * (0.6 + 0.4 * sum(others) / len(others))

    none = [x for x in found if x.condition == "none"]
    expected = sum(kept(x.state) for x in none) / len(none)
    assert expected < 0.85, "nothing is corrupted: this test could not fail"
    assert abs(sum(x.action == x.state.expert for x in none) / len(none) - expected) < 0.04


def test_play_counts_what_the_game_refuses(games, env):
    prompt_format = LAB.make_format(CONFIG)
    (outcome,) = play([games[0]], [env], prompt_format, lambda running: ["dance"] * len(running))
    assert (outcome.won, outcome.steps, outcome.valid, outcome.admissible) == (False, CONFIG.max_steps, 0, 0)


def test_more_games_than_environments_are_refused(games, env):
    with pytest.raises(ValueError, match="2 games need as many environments"):
        play(games[:2], [env], LAB.make_format(CONFIG), lambda running: [])
