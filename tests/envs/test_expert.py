"""The scripted player: fair, imitable from the prompt, nearly always right; the corrupted one is worse."""

from dataclasses import replace

import pytest
from sdar_envs.alfworld.env import AlfworldEnv
from sdar_envs.alfworld.expert import Expert, corrupt
from sdar_envs.alfworld.games import TASK_TYPES
from sdar_envs.alfworld.generate import generate_games
from sdar_envs.alfworld.goal import Goal, read_goal
from sdar_envs.alfworld.knobs import Knobs
from sdar_envs.alfworld.pddl import task_templates
from sdar_envs.base import EnvError, EpisodeView

SMALL = Knobs(receptacles=(3, 6), objects=(5, 6))


@pytest.fixture(scope="module")
def games(tmp_path_factory):
    return generate_games(tmp_path_factory.mktemp("games"), "valid_unseen", 60, seed=5)


@pytest.fixture(scope="module")
def small_games(tmp_path_factory):
    return generate_games(tmp_path_factory.mktemp("games"), "valid_unseen", 30, seed=6, knobs=SMALL)


@pytest.fixture(scope="module")
def env():
    return AlfworldEnv(max_steps=50)


def play(env, game, expert, check=None):
    observation, info = env.reset(task=game)
    expert.reset(info["task_description"], observation)
    view = EpisodeView(info["task_description"], observation, info["admissible_actions"])
    while True:
        action = expert.act(view)
        assert action in view.admissible_actions and action != "help"
        if check:
            check(view, action)
        observation, _, won, truncated, info = env.step(action)
        view.history.append((view.observation, action))
        view.observation, view.admissible_actions = observation, info["admissible_actions"]
        if won or truncated:
            return won, [action for _, action in view.history]


def test_wins_nearly_all_generated_games(env, games):
    won = {game.id: play(env, game, Expert())[0] for game in games}
    assert sum(won.values()) >= 0.95 * len(games), [id for id, win in won.items() if not win]


def test_decides_from_what_a_prompt_shows(env, small_games):
    """Two steps of history are enough, in clean and in disturbed play: labels can be learned from the prompt."""
    labeller = Expert()

    def check(view, action):
        labeller.reset(view.task_description, (view.history[0][0] if view.history else view.observation))
        assert labeller.act(replace(view, history=view.history[-2:])) == labeller.act(view)

    for game in small_games:
        play(env, game, Expert(), check)
        play(env, game, Expert(1, random_action=0.3), check)


def test_searches_in_the_order_of_the_rooms_list():
    first = (
        "You are in the middle of a room. Looking quickly around you, you see a bed 1, a desk 1, and a safe 1.\n\n"
        "Your task is to: put a pen in safe."
    )
    expert = Expert()
    expert.reset("put a pen in safe.", first)
    go = ["go to bed 1", "go to desk 1", "go to safe 1", "help", "inventory", "look"]
    assert expert.act(EpisodeView("", first, go)) == "go to bed 1"
    at_bed = ["examine bed 1", "go to desk 1", "go to safe 1", "help", "inventory", "look"]
    assert expert.act(EpisodeView("", "You arrive at bed 1.", at_bed, [(first, "go to bed 1")])) == "go to desk 1"
    at_safe = ["examine safe 1", "go to bed 1", "go to desk 1", "look"]
    assert expert.act(EpisodeView("", "The safe 1 is open.", at_safe)) == "go to bed 1"
    assert expert.act(EpisodeView("", "The safe 1 is closed.", [*at_safe, "open safe 1"])) == "open safe 1"


def test_both_dialects_of_putting_down():
    first = "Looking quickly around you, you see a bed 1, and a safe 1.\n\nYour task is to: put a pen in safe."
    for put in ("move pen 1 to safe 1", "put pen 1 in/on safe 1"):
        expert = Expert()
        expert.reset("put a pen in safe.", first)
        actions = ["examine pen 1", "examine safe 1", "go to bed 1", "look", put]
        assert expert.act(EpisodeView("", "You open the safe 1.", actions, [("x", "open safe 1")])) == put
        wrong = [action.replace("pen", "mug") for action in actions]
        assert expert.act(EpisodeView("", "You open the safe 1.", wrong)) == put.replace("pen", "mug")


def test_same_seed_same_play_and_other_seed_other_play(env, small_games):
    def plays(seed):
        return [play(env, game, Expert(seed, wrong_subgoal=0.3, random_action=0.3)) for game in small_games[:8]]

    assert plays(1) == plays(1)
    assert plays(1) != plays(2)
    assert plays(1)[-1] == play(env, small_games[7], Expert(1, wrong_subgoal=0.3, random_action=0.3))


def test_corruption_costs_success(env, small_games):
    def rate(expert):
        short = AlfworldEnv(max_steps=20)
        return sum(play(short, game, expert)[0] for game in small_games) / len(small_games)

    clean, half, broken = rate(Expert()), rate(corrupt(Expert(), random_action=0.5)), rate(Expert(random_action=1.0))
    assert clean > half > broken
    assert rate(corrupt(Expert(), wrong_subgoal=1.0)) < 0.5 * clean


def test_wrong_plan_never_prepares_the_object(env, small_games):
    for game in small_games:
        if game.task_type == "pick_heat_then_place_in_recep":
            won, actions = play(env, game, Expert(plan="pick_and_place_simple"))
            assert not won and not any(action.startswith("heat") for action in actions)
            won, actions = play(env, game, Expert())
            assert won and any(action.startswith("heat") for action in actions)


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_reads_every_sentence_of_alfworld(task_type):
    for template in task_templates(task_type):
        sentence = template.format(obj="saltshaker", recep="sinkbasin", toggle="desklamp")
        place = "desklamp" if task_type == "look_at_obj_in_light" else "sinkbasin"
        assert read_goal(sentence + ".") == read_goal(sentence) == Goal(task_type, "saltshaker", place)


def test_bad_use_is_refused():
    with pytest.raises(EnvError, match="random_action"):
        Expert(random_action=1.5)
    with pytest.raises(EnvError, match="known: pick_and_place_simple"):
        Expert(plan="juggle")
    with pytest.raises(EnvError, match="reset"):
        Expert().act(EpisodeView("", "", []))
    with pytest.raises(EnvError, match="lists no places"):
        Expert().reset("put a pen in safe.", "You arrive at safe 1.")
    with pytest.raises(EnvError, match="cannot read the task"):
        read_goal("Please tidy up the kitchen")
