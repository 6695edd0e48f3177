"""`sdar plan` as it is called: recipes, models, files, JSON, picture, refusals."""

import json
import re
import subprocess
import sys

import pytest
from matplotlib import image
from plan_jobs import RECIPE, ROOT

from sdar_verl.cli import main as cli
from sdar_verl.plan import memory

RECIPES = sorted((ROOT / "recipes" / "alfworld").glob("*[0-9]b.sh"))


def plan(capsys, *arguments):
    status = cli.main(["plan", *map(str, arguments)])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_has_a_plan(recipe, capsys):
    status, text, _ = plan(capsys, recipe)
    assert status == 0
    for word in ("GiB on one GPU", "It fits", "actor weights", "KV cache", "Cost of the run", "on demand", "save_freq",
                 "GRPO+OPSD", "The same run elsewhere", "p4d.24xlarge", "WARNING", "rollout  "):  # fmt: skip
        assert word in text, word


def test_json_holds_the_same_numbers_as_the_table(capsys):
    status, text, _ = plan(capsys, RECIPE, "--instance", "p4d", "--json")
    found = json.loads(text)
    assert status == 3 and found["fit"]["word"] == "no"
    assert tuple(found["memory_bytes"]) == memory.ALWAYS
    for phase in memory.ALWAYS:
        assert found["memory_bytes"][phase]["total"] == pytest.approx(
            sum(found["memory_bytes"][phase]["parts"].values())
        )
    assert found["solution"] == ["actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192"]
    assert found["usd"]["on_demand"] == pytest.approx(found["run_hours"] * 21.957642)
    status, table, _ = plan(capsys, RECIPE, "--instance", "p4d")
    assert status == 3 and "It does not fit. Fullest: update" in table
    assert f"{found['peak_bytes'] / 2**30:.1f} GiB" in table
    assert "Chosen: actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192" in table


def test_the_chosen_change_makes_it_fit(capsys):
    status, text, _ = plan(
        capsys, RECIPE, "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192", "--instance", "p4d"
    )
    assert status == 0 and "It fits." in text


def test_a_run_that_spot_would_never_let_end(capsys):
    status, text, _ = plan(capsys, RECIPE, "--spot-mtbf", "0.001", "--json")
    found = json.loads(text)
    assert status == 0 and found["spot"]["hours"] is None and found["usd"]["spot"] is None
    assert "it would not end" in plan(capsys, RECIPE, "--spot-mtbf", "0.001", "--only", "cost")[1]


def test_a_model_and_flags_without_a_recipe(capsys, tmp_path):
    config = {"model_type": "llama", "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 16,
              "num_attention_heads": 16, "vocab_size": 32000, "max_position_embeddings": 4096}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    overrides = ["trainer.total_training_steps=20", "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
                 "actor_rollout_ref.actor.use_dynamic_bsz=true", "data.train_batch_size=8"]  # fmt: skip
    flags = ["--model", "mine", "--model-config", tmp_path, "--gpus", 1, "--instance", "g6e.xlarge", "--json"]
    status, text, _ = plan(capsys, *flags, *overrides)
    found = json.loads(text)
    assert status == 0 and found["model"]["name"] == "mine" and found["instance"]["name"] == "g6e.xlarge"


def test_a_runs_own_configuration(capsys, tmp_path):
    from omegaconf import OmegaConf

    from sdar_verl.plan.compose import compose

    OmegaConf.save(OmegaConf.create(compose(RECIPE, ["method=grpo"])), tmp_path / "config.yaml")
    status, text, _ = plan(capsys, "--config", tmp_path / "config.yaml", "--json")
    assert status == 0 and not any(json.loads(text)["teachers"])


def test_the_picture_is_a_picture(capsys, tmp_path):
    file = tmp_path / "plan.png"
    assert plan(capsys, RECIPE, "--chart", file)[0] == 0
    pixels = image.imread(file)
    assert pixels.shape[0] > 800 and pixels.shape[1] > 1000 and pixels.std() > 0.05
    status, _, error = plan(capsys, RECIPE, "--chart", tmp_path / "missing" / "plan.png")
    assert status == 1 and "cannot write the chart" in error


def test_plain_characters_on_a_plain_terminal():
    command = [sys.executable, "-m", "sdar_verl.cli.main", "plan", str(RECIPE)]
    variables = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{ROOT / 'envs'}", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=variables, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "####" in done.stdout.decode("ascii")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a recipe"),
        ([RECIPE, RECIPE], "one recipe at a time"),
        ([RECIPE, "--instance", "p9"], "'p9' is unknown; known: p4d"),
        ([RECIPE, "actor_rollout_ref.model.path=my/model"], "--model-config FILE"),
        ([RECIPE, "platform=cpu"], "leave platform=cpu out"),
        ([RECIPE, "sdar.teacher.model_path=other"], "no use with sdar.teacher.placement=actor"),
        ([RECIPE, "method=opd", "sdar.teacher.model_path=other"], "nothing is known.*--teacher-config FILE"),
        ([RECIPE, "trainer.n_gpus_per_node=6"], "no instance has 6 GPUs; known sizes: \\[1, 2, 4, 8\\]"),
        ([RECIPE, "trainer.total_training_steps=null"], "no end to plan for"),
        ([RECIPE, "--calibrate", "nowhere"], "there is no run folder nowhere"),
        ([RECIPE, "--prices", "nowhere.json"], "cannot read the prices"),
        ([RECIPE, "--spot-mtbf", "nan"], "must be above 0"),
        ([RECIPE, "--turns", "nan"], "turns, prompt and answer tokens must be"),
        ([RECIPE, "--save-prices", "x.json"], "give both"),
        ([RECIPE, "--only", "weather"], "no section 'weather'; known: run, memory"),
        (["--config", "nowhere.yaml"], "cannot read the configuration"),
        (["--config", "x.yaml", "a=b"], "neither a recipe nor overrides"),
    ],
    ids=lambda value: (
        value if isinstance(value, str) else " ".join(str(v).rpartition("/")[2] for v in value) or "nothing"
    ),
)
def test_what_cannot_be_planned_is_refused(arguments, message, capsys):
    status, out, error = plan(capsys, *arguments)
    assert status == 1 and not out and error.startswith("sdar plan: ")
    assert re.search(message, error), error


def test_the_arithmetic_needs_neither_torch_nor_verl():
    heavy = ("torch", "verl", "ray", "transformers", "matplotlib", "hydra", "boto3")
    parts = ", ".join(f"sdar_verl.plan.{part}" for part in ("planning", "table", "calibration", "compose"))
    code = f"import sys, {parts}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
