"""The instance recipes are what the planner chose, and say so with its own table."""

import pytest
from plan_jobs import RECIPE, ROOT

from sdar_verl.cli import main as cli
from sdar_verl.plan import compose

INSTANCES = ("p4d", "p4de", "p5")
CHOSEN = {
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu",
    "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu",
    "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu",
    "trainer.save_freq",
}


def recipe(instance):
    return ROOT / "recipes" / "alfworld" / f"{instance}.sh"


def plan(capsys, *arguments):
    status = cli.main(["plan", *map(str, arguments)])
    return status, capsys.readouterr().out


def leaves(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@pytest.mark.parametrize("instance", INSTANCES)
def test_the_table_in_the_recipe_is_the_planners(instance, capsys):
    status, table = plan(capsys, recipe(instance), "--instance", instance, "--ascii", "--only", "memory")
    comment = [line[2:] for line in recipe(instance).read_text().splitlines() if line.startswith("#")]
    wanted = table.rstrip("\n").splitlines()
    assert status == 0 and comment[-len(wanted) :] == wanted


@pytest.mark.parametrize("instance", INSTANCES)
def test_the_recipe_is_the_shared_setting_and_what_the_planner_chose(instance, capsys):
    ours, shared = (dict(leaves(compose.compose(path, []))) for path in (recipe(instance), RECIPE))
    name = f"sdar-alfworld-qwen2.5_7b-{instance}"
    named = {key for key in ours if name in str(ours[key])}
    assert ours["sdar.run_dir"] == f"runs/{name}"
    assert {key for key in ours if ours[key] != shared[key]} - named == CHOSEN
    chosen = f"ppo_max_token_len_per_gpu={ours['actor_rollout_ref.actor.ppo_max_token_len_per_gpu']}"
    saves = f"trainer.save_freq={ours['trainer.save_freq']} "
    assert chosen in plan(capsys, RECIPE, "--instance", instance, "--only", "fit")[1]
    assert saves in plan(capsys, recipe(instance), "--instance", instance, "--only", "cost")[1]


@pytest.mark.parametrize("instance", INSTANCES)
def test_arguments_still_win(instance):
    assert compose.compose(recipe(instance), ["method=grpo", "trainer.save_freq=7"])["trainer"]["save_freq"] == 7


def test_the_example_in_the_documentation_is_what_the_command_prints(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = plan(capsys, RECIPE.relative_to(ROOT), "--instance", "p4d")[1]
    shown = (ROOT / "docs" / "planner.md").read_text()
    left_out = ("Main memory", "Sources")
    for block in text.rstrip("\n").split("\n\n"):
        assert block.startswith(left_out) or block in shown, block
