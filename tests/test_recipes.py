"""Every recipe composes against the installed verl, with the published numbers; a wrong key fails."""

import os
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sdar_verl.plan import models
from sdar_verl.plan.job import job_from_config
from sdar_verl.plan.units import GIB
from sdar_verl.room import warn_of_memory
from sdar_verl.settings import Settings

ROOT = Path(__file__).parents[1]
SHARED = {"official.sh"}
INSTANCES = {"p4d.sh", "p4de.sh", "p5.sh"}  # tests/plan/test_plan_recipes.py
RECIPES = sorted(path for path in (ROOT / "recipes").rglob("*.sh") if path.name not in SHARED | INSTANCES)
MODELS = {
    "qwen2.5_3b": "Qwen/Qwen2.5-3B-Instruct",
    "qwen2.5_7b": "Qwen/Qwen2.5-7B-Instruct",
    "qwen3_1.7b": "Qwen/Qwen3-1.7B",
}
METHODS = sorted(path.stem for path in (ROOT / "sdar_verl" / "config" / "method").glob("*.yaml"))
COMMON = {
    "data.max_response_length": 512,
    "actor_rollout_ref.rollout.n": 8,
    "actor_rollout_ref.rollout.temperature": 1.0,
    "actor_rollout_ref.actor.optim.lr": 1e-6,
    "actor_rollout_ref.actor.clip_ratio_low": 0.2,
    "actor_rollout_ref.actor.clip_ratio_high": 0.2,
    "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
    "actor_rollout_ref.actor.ppo_epochs": 1,
    "actor_rollout_ref.actor.use_kl_loss": True,
    "actor_rollout_ref.actor.kl_loss_type": "low_var_kl",
    "algorithm.adv_estimator": "grpo",
    "algorithm.use_kl_in_reward": False,
    "trainer.total_training_steps": 150,
    "trainer.v1.trainer_mode": "sdar",
}
PUBLISHED = {
    "alfworld": {
        "data.train_batch_size": 16,
        "data.max_prompt_length": 2048,
        "actor_rollout_ref.rollout.val_kwargs.temperature": 0.4,
        "actor_rollout_ref.rollout.val_kwargs.do_sample": True,
        "actor_rollout_ref.rollout.tensor_model_parallel_size": 2,
        "actor_rollout_ref.rollout.gpu_memory_utilization": 0.6,
        "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio": 0.0,
        "actor_rollout_ref.actor.kl_loss_coef": 0.01,
        "env.invalid_action_penalty": 0.1,
        "env.alfworld.max_steps": 50,
        "env.alfworld.history_length": 2,
        "env.alfworld.success_reward": 10.0,
        "sdar.panel.size": 128,
        "trainer.n_gpus_per_node": 8,
        "trainer.test_freq": 5,
    },
    "search_qa": {
        "data.train_batch_size": 128,
        "data.max_prompt_length": 4096,
        "actor_rollout_ref.rollout.val_kwargs.temperature": 0,
        "actor_rollout_ref.rollout.val_kwargs.do_sample": False,
        "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
        "actor_rollout_ref.rollout.gpu_memory_utilization": 0.5,
        "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio": 0.1,
        "actor_rollout_ref.actor.kl_loss_coef": 0.001,
        "env.invalid_action_penalty": 0.01,
        "env.search_qa.max_steps": 4,
        "env.search_qa.history_length": 4,
        "env.search_qa.topk": 3,
        "sdar.panel.size": 512,
        "trainer.n_gpus_per_node": 4,
        "trainer.test_freq": 150,
    },
    "webshop": {
        "data.train_batch_size": 16,
        "data.max_prompt_length": 4096,
        "actor_rollout_ref.rollout.val_kwargs.temperature": 0.4,
        "actor_rollout_ref.rollout.val_kwargs.do_sample": True,
        "actor_rollout_ref.rollout.tensor_model_parallel_size": 2,
        "actor_rollout_ref.rollout.gpu_memory_utilization": 0.6,
        "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio": 0.0,
        "actor_rollout_ref.actor.kl_loss_coef": 0.01,
        "env.invalid_action_penalty": 0.1,
        "env.webshop.max_steps": 15,
        "env.webshop.history_length": 2,
        "env.webshop.success_reward": 10.0,
        "env.webshop.goals": "synthetic",
        "sdar.panel.size": 128,
        "trainer.n_gpus_per_node": 2,
        "trainer.test_freq": 5,
    },
}
GPUS = {("webshop", "qwen2.5_7b"): {"trainer.n_gpus_per_node": 8}}  # two hold no full fine-tune of 7B, here or anywhere
MINI_BATCH_ROWS = {"alfworld": 256, "search_qa": 256, "webshop": 64}


def published(recipe):
    return COMMON | PUBLISHED[recipe.parent.name]


def call(recipe, *arguments, python=sys.executable):
    """The recipe as a user calls it; ``--cfg job`` makes Hydra print the composed configuration and stop."""
    environment = os.environ | {"PYTHON": python, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "envs")])}
    for name in ("ALFWORLD_DATA", "WEBSHOP_DATA", "SEARCH_QA_DATA"):
        environment.pop(name, None)
    return subprocess.run(
        ["bash", str(recipe), *arguments, "--cfg", "job", "--resolve"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )


@lru_cache
def composed(recipe, *arguments):
    result = call(recipe, *arguments)
    assert result.returncode == 0, result.stderr
    return OmegaConf.create(result.stdout)


@pytest.mark.parametrize("env", PUBLISHED)
def test_there_is_a_recipe_for_every_published_model(env):
    assert {path.stem for path in RECIPES if path.parent.name == env} == set(MODELS)
    assert {path.parent.name for path in RECIPES} == set(PUBLISHED)


@pytest.mark.parametrize("method", ["sdar", "grpo"])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_composes_with_the_published_numbers(recipe, method):
    config = composed(recipe, f"method={method}")
    expected = published(recipe) | GPUS.get((recipe.parent.name, recipe.stem), {})
    assert {key: OmegaConf.select(config, key) for key in expected} == expected
    rows = config.actor_rollout_ref.actor.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n
    assert rows == MINI_BATCH_ROWS[recipe.parent.name]
    assert config.actor_rollout_ref.model.path == MODELS[recipe.stem]
    assert config.trainer.experiment_name == f"{method}-{recipe.parent.name}-{recipe.stem}"
    assert config.sdar.run_dir == f"runs/{config.trainer.experiment_name}"
    settings = Settings.from_config(OmegaConf.to_container(config))
    if method == "grpo":
        assert settings.distillation is None
    else:
        assert (settings.distillation.coef, settings.distillation.beta) == (0.01, 5.0)
        assert {settings.distillation.coef_at(step) for step in (1, 150)} == {0.01}
        assert settings.teacher.max_prompt_length > config.data.max_prompt_length


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_fits_on_gpus_of_80_gb(recipe, capsys):
    config = OmegaConf.to_container(composed(recipe, "method=sdar"))
    job = job_from_config(config, models.load(MODELS[recipe.stem]))
    warn_of_memory(job, 79.2 * GIB)
    assert capsys.readouterr().out == ""
    warn_of_memory(job, 15 * GIB)
    assert re.search(r"may run out of GPU memory: in its phase '\w+' .* of 15.0 \(", capsys.readouterr().out)


@pytest.mark.parametrize("env", PUBLISHED)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_from_a_recipe(method, env):
    """Numbers of the setting stay; what the method sets is its own (tests/test_method_docs.py)."""
    recipe = next(path for path in RECIPES if path.parent.name == env)
    asked = ["sdar.teacher.model_path=another"] if method == "opd" else []
    config = composed(recipe, f"method={method}", *asked)
    settings = Settings.from_config(OmegaConf.to_container(config))
    assert settings.method == method
    kl = {"actor_rollout_ref.actor.use_kl_loss", "actor_rollout_ref.actor.kl_loss_coef"}
    alone = settings.distillation is not None and not settings.distillation.rl
    kept = {key: value for key, value in published(recipe).items() if not (alone and key in kl)}
    assert {key: OmegaConf.select(config, key) for key in kept} == kept
    if alone:
        actor = config.actor_rollout_ref.actor
        assert not actor.use_kl_loss or actor.kl_loss_coef == 0, "only the teacher teaches"
    assert config.trainer.experiment_name.startswith(f"{method}-{env}")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_passes_verls_own_validation(recipe):
    from sdar_verl.compat import stock

    stock.validate(composed(recipe, "method=sdar").copy())


def test_only_qwen3_turns_the_templates_thinking_off():
    for recipe in RECIPES:
        kwargs = composed(recipe, "method=sdar").data.apply_chat_template_kwargs
        assert kwargs == ({"enable_thinking": False} if recipe.stem.startswith("qwen3") else {})


def test_the_users_overrides_win():
    config = composed(RECIPES[0], "trainer.n_gpus_per_node=4", "sdar.distillation.beta=1.0", "method=sdar")
    assert (config.trainer.n_gpus_per_node, config.sdar.distillation.beta) == (4, 1.0)


@pytest.mark.parametrize("wrong", ["sdar.distillation.lambda=0.1", "actor_rollout_ref.actor.kl_coef=0.1", "method=sda"])
def test_a_wrong_key_fails(wrong):
    result = call(RECIPES[0], wrong)
    assert result.returncode != 0
    assert wrong.partition("=")[0].rpartition(".")[2] in result.stderr


def test_verl_refuses_the_published_mini_batch_without_token_wise_micro_batches():
    """Why the recipes cut micro-batches by tokens: a mini-batch of 32 prompts (256 rows) exceeds the 16 of a step."""
    from sdar_verl.compat import stock

    config = composed(RECIPES[0], "method=sdar").copy()
    config.actor_rollout_ref.actor.use_dynamic_bsz = False
    config.actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu = 32
    with pytest.raises(ValueError, match="ppo_mini_batch_size"):
        stock.validate(config)
