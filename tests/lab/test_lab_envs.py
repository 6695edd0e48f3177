"""What every environment of the lab must give: lessons that can be learned, plans that differ, a fit that runs."""

import argparse
import json
from random import Random

import pytest
from omegaconf import OmegaConf
from sdar_envs.base import EnvError
from sdar_envs.search_qa.world.read import read_question

from sdar_verl.cli import lab as lab_cli
from sdar_verl.errors import ConfigError
from sdar_verl.lab import envs
from sdar_verl.lab.corpus import lessons, walk
from sdar_verl.lab.envs.base import World
from sdar_verl.lab.fit import lessons_of
from sdar_verl.lab.play import play
from sdar_verl.lab.prompts import SkillShelf
from sdar_verl.lab.record import fingerprint, read_record
from sdar_verl.skills import open_store

OTHERS = ("search_qa", "webshop")  # ALFWorld has tests of its own
TASKS = 36


def run(*words):
    parser = argparse.ArgumentParser()
    lab_cli.add_parser(parser.add_subparsers())
    args = parser.parse_args(["lab", *map(str, words)])
    return args.func(args)


@pytest.fixture(scope="module", params=OTHERS)
def lab(request):
    return envs.get(request.param)


@pytest.fixture(scope="module")
def worlds(lab, tmp_path_factory):
    return lab.worlds(tmp_path_factory.mktemp(lab.name), "train", TASKS, 0, lab.config.knobs)


@pytest.fixture(scope="module")
def states(lab, worlds):
    found = []
    for world in worlds:
        env, prompt_format = lab.make_env(lab.config, world), lab.make_format(lab.config)
        for task in world.tasks:
            found += walk(lab, env, prompt_format, task, (0.0, 0.5), Random(task.id))
        env.close()
    return found


def success(lab, worlds, choose_type):
    """The share of tasks won by following the plan of the type that `choose_type` gives for a task."""
    won = []
    for world in worlds:
        env, players = lab.make_env(lab.config, world, lab.play.max_steps), {}

        def choose(running, players=players):
            (task, view), *_ = running
            player = players.setdefault(task.id, lab.player(view))
            return [lab.answer(player.plans(view)[choose_type(task)])]

        for task in world.tasks:
            (outcome,) = play([task], [env], lab.make_format(lab.config), choose, lab.understands)
            assert outcome.valid == outcome.admissible == outcome.steps
            won.append(outcome.won)
        env.close()
    return sum(won) / len(won)


def test_known_and_unknown_names():
    assert envs.names() == ["alfworld", "search_qa", "webshop"]
    assert all(envs.get(name).name == name == envs.get(name).config.env_name for name in envs.names())
    with pytest.raises(ConfigError, match="known: alfworld, search_qa, webshop"):
        envs.get("chess")


def test_tasks_are_as_many_as_asked_and_all_different(lab, worlds):
    ids = [(str(world.settings), task.id) for world in worlds for task in world.tasks]
    assert len(ids) == TASKS == len(set(ids))
    assert {task.task_type for world in worlds for task in world.tasks} == set(lab.play.task_types)


def test_unseen_tasks_come_from_other_worlds(lab, worlds, tmp_path):
    unseen = lab.worlds(tmp_path, "valid_unseen", 24, 0, lab.play.knobs)
    assert {task.task_type for world in unseen for task in world.tasks} <= set(lab.play.task_types)
    said = []
    for group in (worlds, unseen):
        texts = set()
        for world in group:
            env = lab.make_env(lab.config, world)
            texts |= {env.reset(task=task)[1]["task_description"] for task in world.tasks}
            env.close()
        said.append(texts)
    assert len(said[0] & said[1]) <= len(said[1]) // 10  # small shops may happen to hear the same wish


def test_games_of_training_runs_are_kept_and_split_and_of_the_difficulty_played(tmp_path):
    lab, splits = envs.get("search_qa"), {"train": 30, "valid_unseen": 12}
    folder = tmp_path / "games"
    lab.make_games(folder, splits, 7)
    stamp = (folder / "corpus.jsonl").stat().st_mtime_ns
    lab.make_games(folder, splits, 7)
    assert (folder / "corpus.jsonl").stat().st_mtime_ns == stamp
    with pytest.raises(EnvError, match="made from other inputs"):
        lab.make_games(folder, splits, 8)
    settings = OmegaConf.to_container(
        OmegaConf.from_dotlist([f"{key}={value}" for key, value in lab.game_settings(folder).items()])
    )
    starts = {}
    for split, number in splits.items():
        tasks = lab.family.tasks(settings, split)
        assert len(tasks) == number and {task.task_type for task in tasks} == set(lab.play.task_types)
        env = lab.make_env(lab.config, World(tasks, settings))
        starts[split] = {read_question(env.reset(task=task)[1]["task_description"]).chains[0].start for task in tasks}
        env.close()
    assert not starts["train"] & starts["valid_unseen"]


def test_shopping_goals_of_training_runs_are_kept_and_split(tmp_path):
    lab = envs.get("webshop")
    splits = {"train": 30, lab.valid_split: 12}
    lab.make_games(tmp_path, splits, 7)
    stamp = (tmp_path / "catalogue" / "nouns.json").stat().st_mtime_ns
    lab.make_games(tmp_path, splits, 7)
    assert (tmp_path / "catalogue" / "nouns.json").stat().st_mtime_ns == stamp
    with pytest.raises(EnvError, match="made from other inputs"):
        lab.make_games(tmp_path, splits, 8)
    settings = lab.game_settings(tmp_path)
    tasks = {split: lab.family.tasks(settings, split) for split in splits}
    assert {split: len(found) for split, found in tasks.items()} == splits
    assert {task.task_type for task in tasks["train"]} == set(lab.play.task_types)
    env = lab.make_env(lab.config, World(tasks["train"], settings))
    said = {split: {env.reset(task=task)[1]["task_description"] for task in found} for split, found in tasks.items()}
    env.close()
    assert len(said["train"] & said[lab.valid_split]) <= 1  # two products may be wished for in the same words
    with pytest.raises(EnvError, match="too few for"):
        lab.make_games(tmp_path / "more", {"train": 5000, lab.valid_split: 12}, 7)


def test_the_right_plan_wins_and_a_wrong_one_does_not(lab, worlds):
    def wrong(task):
        return Random(task.id).choice([other for other in lab.family.task_types if other != task.task_type])

    assert success(lab, worlds, lambda task: task.task_type) >= 0.75
    assert success(lab, worlds, wrong) <= 0.35


def test_nonsense_is_counted_as_not_understood(lab, worlds):
    world = worlds[0]
    env = lab.make_env(lab.config, world)
    (outcome,) = play(
        world.tasks[:1], [env], lab.make_format(lab.config), lambda running: ["dance"] * len(running), lab.understands
    )
    env.close()
    assert (outcome.won, outcome.steps, outcome.admissible) == (False, lab.config.max_steps, 0)


def test_plans_can_be_learned_from_the_prompt(lab, states):
    """One prompt has one answer: what is shown decides, within a world and a task."""
    assert len({(state.task.path, state.task.id, state.prompt) for state in states}) == len(states)
    assert all(set(state.plans) == set(lab.family.task_types) for state in states)
    assert all(state.can for state in states)
    differ = sum(len(set(state.plans.values())) > 1 for state in states) / len(states)
    assert 0.2 < differ < 0.9


def test_answers_are_read_back_as_they_were_meant(lab, states):
    prompt_format = lab.make_format(lab.config)
    for state in states:
        for action in (*state.plans.values(), *state.can):
            parsed = prompt_format.parse(lab.answer(action), state.can)
            assert parsed.valid and parsed.action == action


def test_skills_decide_what_is_done(lab, states):
    shelf = SkillShelf(open_store(lab.config.skills, env=lab.name, task_types=lab.family.task_types), lab.name)
    found = lessons(states, shelf, {"right": 1.0, "wrong": 1.0, "none": 1.0}, wrong_plan=0.5, seed=0)
    for lesson in found:
        (followed,) = {skill.task_type for skill in lesson.skills} - {None} or {lesson.state.task.task_type}
        if lesson.condition != "none":
            assert lesson.action == lesson.state.plans[followed]
    for condition in ("wrong", "none"):
        own = [lesson for lesson in found if lesson.condition == condition]
        assert any(lesson.action != lesson.state.expert for lesson in own)


def test_each_stage_has_its_lessons_and_teaches_doubt_after_the_first(lab, states):
    found = lessons_of(lab.config, states)
    assert len(found) == len(lab.config.stages) >= 2
    for stage, own in zip(lab.config.stages, found, strict=True):
        for condition, share in stage.shares.items():
            number = sum(lesson.condition == condition for lesson in own)
            assert int(share) * len(states) <= number <= (int(share) + (share % 1 > 0)) * len(states)
            assert abs(number - share * len(states)) < 4 * len(states) ** 0.5
        unskilled = [lesson for lesson in own if lesson.condition == "none" and not lesson.skills]
        right = sum(lesson.action == lesson.state.expert for lesson in unskilled) / len(unskilled)
        assert right == 1 if stage.wrong_plan == 0 else right < 1


def test_fit_and_evaluation_run_from_end_to_end(lab, tmp_path, capsys):
    model = tmp_path / "model"
    assert run("fit", model, "--quick", "--env", lab.name) == 0
    record = read_record(model)
    assert record["env"] == lab.name and record["fingerprint"] == fingerprint(lab.config.quick())
    assert record["last_loss"] < record["curve"][0]
    assert run("eval", model, "--games", 6) == 0
    shown = capsys.readouterr().out
    assert all(f"\n{condition}" in shown for condition in ("right", "none", "wrong")) and "(n = 6)" in shown
    assert run("eval", model, "--env", "alfworld") == 1
    assert f"was fitted for {lab.name}, not for alfworld" in capsys.readouterr().err


def test_a_prompt_that_the_model_cannot_take_is_a_clear_error(lab, tmp_path, capsys):
    """The longest prompts of an evaluation may be longer than any that the model was fitted on."""
    model = tmp_path / "model"
    assert run("fit", model, "--quick", "--env", lab.name) == 0
    record = json.loads((model / "lab.json").read_text())
    record["config"]["max_positions"] = lab.answer_tokens + 20
    (model / "lab.json").write_text(json.dumps(record))
    assert run("eval", model, "--games", 2) == 1
    said = capsys.readouterr().err
    assert "tokens is too long" in said and "max_positions=N" in said
    assert run("fit", tmp_path / "other", "--quick", "--env", lab.name, "--set", "max_positions=60") == 1
    assert "tokens is too long" in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_fit_of_an_unknown_environment_lists_the_known_ones(tmp_path, capsys):
    assert run("fit", tmp_path / "model", "--env", "chess") == 1
    assert "known: alfworld, search_qa, webshop" in capsys.readouterr().err


def test_eval_of_an_environment_without_shipped_weights_says_how_to_make_them(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sdar_verl.lab.WEIGHTS", tmp_path)
    assert run("eval", "--env", "webshop") == 1
    assert "no fitted model ships for webshop" in capsys.readouterr().err
