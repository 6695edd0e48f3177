"""What a comparison consists of: files, command lines, choices, and what is refused before anything starts."""

import argparse
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdar_verl.cli import compare as cli
from sdar_verl.compare.composed import compose_arms, overrides
from sdar_verl.compare.sweep import Arm, Sweep, expand, from_file, parse_seeds
from sdar_verl.errors import ConfigError
from sdar_verl.methods import composed

FILES = sorted((Path(__file__).parents[2] / "benchmarks" / "experiments").glob("*.yaml"))
LENGTH = ("trainer.total_training_steps=4", "trainer.test_freq=2")


def arguments(*words):
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    return parser.parse_args(["compare", "run", *map(str, words)])


def sweep_of(*words):
    return cli.sweep_of(arguments(*words))


# --- choices ---


def test_choices_multiply_and_name_the_arms():
    arms = expand("", ["method=grpo,sdar", "sdar.distillation.beta=1,5", "data.train_batch_size=6"])
    assert [arm.name for arm in arms] == ["grpo, beta=1", "grpo, beta=5", "sdar, beta=1", "sdar, beta=5"]
    assert arms[1].overrides == ("method=grpo", "sdar.distillation.beta=5", "data.train_batch_size=6")
    assert arms[1].folder == "grpo-beta-5"
    assert [arm.name for arm in expand("x", ["a.b=range(1,4)"])] == ["x, b=1", "x, b=2", "x, b=3"]
    assert expand("x", ["sdar.context.parts=[a,b]", "name='a,b'"])[0].overrides[0] == "sdar.context.parts=[a,b]"


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True), min_size=1, max_size=3))
@settings(max_examples=30)
def test_every_combination_is_there_once(choices):
    arms = expand("", [f"key.k{i}={','.join(map(str, own))}" for i, own in enumerate(choices)])
    count = 1
    for own in choices:
        count *= len(own)
    assert len({arm.overrides for arm in arms}) == len(arms) == count


@pytest.mark.parametrize("bad", ["a=glob(*)", "a=interval(1,2)", "no override"])
def test_what_cannot_be_listed_is_refused(bad):
    with pytest.raises(ConfigError):
        expand("x", [bad])


# --- command line and file ---


def test_overrides_and_options_may_stand_in_any_order():
    one = sweep_of(
        "--methods", "grpo,sdar", "trainer.total_training_steps=4", "--seeds", "3", "data.train_batch_size=6"
    )
    assert [arm.name for arm in one.arms] == ["grpo", "sdar"] and one.seeds == (0, 1, 2) and one.baseline == "grpo"
    assert one.common == ("trainer.total_training_steps=4", "data.train_batch_size=6") and one.lab is None
    assert sweep_of("--methods", "grpo,sdar", "--lab").lab is not None
    two = sweep_of("method=sdar", "sdar.distillation.beta=1,5", "--seeds", "4,9", "--baseline", "beta=5")
    assert [arm.name for arm in two.arms] == ["beta=1", "beta=5"] and two.seeds == (4, 9)
    assert two.common == ("method=sdar",) and two.baseline == "beta=5"
    three = sweep_of("--methods", "sdar", "sdar.distillation.beta=1,5", "--arm", "plain=method=grpo trainer.x=1")
    assert [arm.name for arm in three.arms] == ["sdar, beta=1", "sdar, beta=5", "plain, beta=1", "plain, beta=5"]


def test_all_arms_of_a_seed_come_before_the_next_seed():
    runs = sweep_of("--methods", "grpo,sdar", "--seeds", "2").runs
    assert [(arm.name, seed) for arm, seed in runs] == [("grpo", 0), ("sdar", 0), ("grpo", 1), ("sdar", 1)]


def test_a_file_takes_changes_for_all_its_runs(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("about: why\nseeds: 2\ncommon: [a.b=1]\narms:\n  one: [method=grpo]\n  two: ['c=1,2']\n")
    sweep = sweep_of(file, "d.e=3", "--seeds", "7,8")
    assert [arm.name for arm in sweep.arms] == ["one", "two, c=1", "two, c=2"]
    assert sweep.common == ("a.b=1", "d.e=3") and sweep.seeds == (7, 8) and sweep.about == "why"
    with pytest.raises(ConfigError, match="names the arms already"):
        sweep_of(file, "--methods", "grpo,sdar")
    with pytest.raises(ConfigError, match="names the arms already"):
        sweep_of(file, "x=1,2")
    with pytest.raises(ConfigError, match="one comparison file"):
        sweep_of(file, tmp_path / "other.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arms: {}", "must map names"),
        ("arms: {a: method=grpo}", "list of overrides"),
        ("arms: {a: [method=grpo]}\nseed: 3", "unknown key seed"),
        ("arms: {a: [method=grpo]}\nseeds: many", "seeds are"),
        ("arms: {a: [method=grpo]}\nseeds: [1, 1]", "different whole numbers"),
        ("arms: {a: [method=grpo]}\nlab: {games: 3}", "train_games, panel, seed"),
        ("arms: {a: [method=grpo]}\nlab: {panel: 0}", "lab.panel"),
        ("arms: {a: [method=grpo]}\nbaseline: b", "no arm 'b'"),
        ("arms: {a: [method=grpo]}\nuntil: 0", "until must be a step"),
        ("arms: {a: [method=grpo]}\nuntil: last", "until must be a step"),
        ("arms: {'a b': [x=1], 'a-b': [x=2]}", "differ in letters"),
        ("arms: {a: [sdar.run_dir=here]}", "set by the comparison itself"),
        ("arms: {a: [++actor_rollout_ref.rollout.seed=3]}", "set by the comparison itself"),
        ("arms: {a: [sdar.panel.size=3]}", "changes the panel"),
        ("arms: {a: [x=1]}\ncommon: ['x=1,2']", "put it there"),
        ("- a", "must be a mapping"),
        ("arms: {", "cannot read"),
    ],
)
def test_files_that_make_no_sense_are_refused(tmp_path, text, said):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        from_file(tmp_path / "bad.yaml")


def test_seeds_are_a_number_or_a_list():
    assert parse_seeds("5") == parse_seeds(5) == (0, 1, 2, 3, 4)
    assert parse_seeds("3, 7") == parse_seeds([3, 7]) == (3, 7)
    for bad in ("0", "x", "1,x", "-1", [], True, None, 1.5):
        with pytest.raises(ConfigError):
            Sweep((Arm("a", ()),), parse_seeds(bad))


def test_no_arm_is_refused():
    with pytest.raises(ConfigError, match="at least one arm"):
        sweep_of("--seeds", "2")


# --- composed before anything starts ---


def test_arms_know_their_length_and_what_they_are_about(tmp_path):
    sweep = sweep_of("--methods", "grpo,sdar", "--arm", "sharp=method=sdar sdar.distillation.beta=9", *LENGTH)
    plans = compose_arms(sweep, tmp_path / "a folder, with=signs")
    assert {name: plan.steps for name, plan in plans.items()} == dict.fromkeys(("grpo", "sdar", "sharp"), 4)
    assert plans["sharp"].changes == ("sdar.distillation.beta",) and plans["sdar"].changes == ()
    assert set(plans["grpo"].changes) == {"sdar.method", "sdar.distillation.enabled"}


def test_two_seeds_of_an_arm_differ_in_seeds_and_places_alone(tmp_path):
    sweep = sweep_of("--methods", "sdar", *LENGTH)
    one, two = (composed(overrides(sweep, tmp_path / "x y", sweep.arms[0], seed)) for seed in (0, 1))
    assert (one.data.seed, two.data.seed) == (0, 1)
    assert one.actor_rollout_ref.rollout.seed == 0 and two.actor_rollout_ref.rollout.seed == 1
    assert one.sdar.panel == two.sdar.panel and one.sdar.run_dir == str(tmp_path / "x y/runs/sdar/seed-0")
    assert one.trainer.resume_mode == "auto"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "grpo,nothing", *LENGTH], "arm nothing does not compose"),
        (["--methods", "grpo", "trainer.test_freq=1"], "total_training_steps"),
        (["--methods", "grpo", "trainer.total_training_steps=4", "trainer.test_freq=-1"], "evaluates nothing"),
        (["--methods", "grpo", "sdar.no.such=1", *LENGTH], "what all arms share does not compose"),
        (["--arm", "odd=method=sdar sdar.distillation.beta=-1", *LENGTH], "arm odd: .*beta"),
        (["--arm", "leaks=++sdar.api_key=abc", *LENGTH], "arm leaks: sdar.api_key: a secret"),
        (["--methods", "grpo", "++sdar.api_key=abc", *LENGTH], "what all arms share: sdar.api_key: a secret"),
        (["--arm", "a=env.valid_split=x", "--arm", "b=env.valid_split=y", *LENGTH], "arm b evaluates another panel"),
    ],
)
def test_an_arm_that_cannot_run_is_found_before_the_first_one_does(tmp_path, words, said):
    with pytest.raises(ConfigError, match=said):
        compose_arms(sweep_of(*words), tmp_path)


# --- the experiment ---


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_arm_of_the_experiment_composes(file, tmp_path):
    sweep = from_file(file)
    plans = compose_arms(sweep, tmp_path)
    assert len(sweep.seeds) == 5 and sweep.lab is not None and sweep.about
    steps = {plan.steps for plan in plans.values()}
    assert steps == {"main": {8}, "strong": {4}}.get(file.stem, {8, 4})
    assert {plan.test_freq for plan in plans.values()} == {2}
    assert sweep.until == (None if file.stem == "main" else min(steps))  # the page compares what all have
    assert all(plans[arm.name].changes or arm.overrides == ("method=sdar",) for arm in sweep.arms)


def test_the_experiments_files_share_runs():
    """One folder can hold all of them: an arm of one name is the same arm, and what all share is the same."""
    sweeps = [from_file(file) for file in FILES]
    assert {"main", "beta", "lambda", "gates", "skills", "strong", "teacher"} == {file.stem for file in FILES}
    assert len({(sweep.common, sweep.lab, sweep.seeds) for sweep in sweeps}) == 1
    by_name = {}
    for arm in (arm for sweep in sweeps for arm in sweep.arms):
        assert by_name.setdefault(arm.name, arm) == arm
    assert len({arm.folder for arm in by_name.values()}) == len(by_name)
