"""PPO's critic: its size by the real architecture, its memory by hand, and what must hold for any critic."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_jobs import CRITICS, JOBS, plain_critic, plain_job, recipe_job
from test_plan_models import TINY, VARIANTS, count
from transformers import AutoConfig, AutoModelForTokenClassification

from sdar_verl.plan import calibration, comparison, critic, host, memory, models, timing, verdict, workload
from sdar_verl.plan.catalogue import load_catalogue
from sdar_verl.plan.units import GIB, PlanError

CATALOGUE = load_catalogue()
GAE = "algorithm.adv_estimator=gae"
TOKENS = 2e6
BLOCK, EMBEDDING = 233_057_792, 152_064 * 3584  # of Qwen2.5-7B
BODY = 7_615_616_512 - EMBEDDING + 3584 + 1  # its output embedding gives way to one value a token


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_critic_counts_like_transformers_token_classifier(variant):
    fields = dict(TINY | VARIANTS[variant])
    shape = models.from_config(fields).with_value_head()
    with torch.device("meta"):
        config = AutoConfig.for_model(fields.pop("model_type"), num_labels=1, **fields)
        real = AutoModelForTokenClassification.from_config(config)
    assert shape.params == count(real)
    assert shape.largest_block == max(count(b) for b in real.model.layers)


def test_no_output_embedding_is_computed():
    for name in ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-3B-Instruct"):  # the second one's embeddings are tied
        policy = models.load(name)
        body = policy.params - policy.embedding * (1 if policy.tied else 2)
        assert timing.model_flops(policy.with_value_head(), 10) == 20 * (body + policy.hidden + 1)


def test_the_critic_of_the_7b_recipe_by_hand():
    """8 GPUs, float32 state, micro-batches of 32,768 tokens, which is verl's default for a critic."""
    job = recipe_job(GAE)
    assert job.critic.model.params == BODY and job.critic.update_tokens == critic.DEFAULT_TOKENS == 32768
    phases = memory.estimate(job, 80 * GIB).phases
    update = phases["critic update"]
    assert update["critic weights"] == update["critic gradients"] == 4 * BODY / 8
    assert update["critic optimizer"] == 8 * BODY / 8
    assert update["activations"] == 32768 * (28 * 3584 * 2 + (8 * 3584 + 3 * 18944) * 2)
    assert update["gathered weights"] == 2 * (2 * BLOCK + EMBEDDING) + 2 * (BLOCK + EMBEDDING) + 4 * BLOCK
    assert "gradients" not in update and update["optimizer"] == job.model.params  # the policy's moments wait
    assert "logits" not in update and "logits" not in phases["values"]
    assert phases["values"]["activations"] == 32768 * ((8 * 3584 + 3 * 18944) * 2 + 2 * 2 * 3584)
    assert phases["values"]["critic optimizer"] == 8 * BODY / 8 and "critic gradients" not in phases["values"]
    assert memory.estimate(job, 80 * GIB).total("critic update") / GIB == pytest.approx(42.3, abs=0.1)
    assert memory.estimate(job, 80 * GIB).total("rollout") - memory.estimate(
        job.with_(critic=None), 80 * GIB
    ).total("rollout") == 12 * BODY / 8  # fmt: skip


def test_a_checkpoint_and_the_disk_hold_the_critic_too():
    job = recipe_job(GAE)
    with_, without = host.estimate(job, TOKENS), host.estimate(job.with_(critic=None), TOKENS)
    assert with_.checkpoint - without.checkpoint == 12 * BODY
    assert with_.export == without.export
    assert with_.disk["checkpoints"] - without.disk["checkpoints"] == 3 * 12 * BODY
    every = host.estimate(job.with_(critic_keep=0), TOKENS)
    assert every.disk["checkpoints"] - without.disk["checkpoints"] == 15 * 12 * BODY, "verl's own default keeps all"
    away = host.estimate(recipe_job(GAE, "critic.fsdp.offload_policy=true"), TOKENS)
    assert away.memory["offloaded training state"] == 16 * BODY
    assert with_.memory["rows of a step"] * 10 == without.memory["rows of a step"] * 11


def test_offloading_the_critic_moves_what_it_says():
    job = recipe_job(GAE, "critic.fsdp.param_offload=true", "critic.fsdp.optimizer_offload=true")
    plain = memory.estimate(recipe_job(GAE), 80 * GIB).phases
    phases = memory.estimate(job, 80 * GIB).phases
    for phase in ("rollout", "hand-over", "score", "update"):
        assert not {part for part in phases[phase] if part.startswith("critic")}
    assert phases["critic update"] == plain["critic update"], "verl loads all of it for the update"
    assert set(plain["values"]) - set(phases["values"]) == {"critic optimizer"}
    moved = timing.PCIE_RATE
    assert times(job).phases["sync"] - times(recipe_job(GAE)).phases["sync"] == pytest.approx(
        (4 * 4 * BODY / 8 + 2 * 8 * BODY / 8) / moved
    )


def test_when_there_is_one():
    assert recipe_job().critic is None and recipe_job(GAE, "critic.enable=false").critic is None
    assert recipe_job("critic.enable=true").critic == recipe_job(GAE).critic


def test_what_the_configuration_says_of_the_critic():
    found = recipe_job(
        GAE, "critic.ppo_max_token_len_per_gpu=8192", "critic.fsdp.model_dtype=bf16", "critic.fsdp.fsdp_size=4",
        "critic.ppo_epochs=2", "critic.ppo_mini_batch_size=16", "critic.model.enable_gradient_checkpointing=false",
        "critic.model.path=Qwen/Qwen2.5-1.5B-Instruct",
    ).critic  # fmt: skip
    assert (found.update_tokens, found.score_tokens) == (8192, 8192)
    assert (found.weight_bytes, found.shards, found.epochs, found.mini_rows) == (2, 4, 2, 128)
    assert not found.checkpointing
    assert found.model.params == models.load("Qwen/Qwen2.5-1.5B-Instruct").with_value_head().params
    short = recipe_job(GAE, "critic.ppo_max_token_len_per_gpu=100").critic
    assert short.update_tokens == 2560, "verl refuses micro-batches below one row"
    with pytest.raises(PlanError, match="critic.strategy=megatron is not planned for"):
        recipe_job(GAE, "critic.strategy=megatron")
    with pytest.raises(PlanError, match="nothing is known.*--critic-config"):
        recipe_job(GAE, "critic.model.path=some/critic")


def test_a_critic_that_is_not_shipped_is_read_from_its_file(tmp_path):
    from plan_jobs import RECIPE

    from sdar_verl.plan.compose import compose
    from sdar_verl.plan.job import job_from_config

    (tmp_path / "config.json").write_text(json.dumps(TINY | VARIANTS["llama"]))
    config = compose(RECIPE, [GAE, "critic.model.path=some/critic"])
    policy = models.load("Qwen/Qwen2.5-7B-Instruct")
    found = job_from_config(config, policy, critic=tmp_path / "config.json").critic
    assert found.model.params == models.from_config(TINY | VARIANTS["llama"]).with_value_head().params


@pytest.mark.slow
def test_verl_cuts_the_critics_micro_batches_as_the_plan_says():
    """By `ppo_infer_max_token_len_per_gpu` for both passes, by tokens whatever `critic.use_dynamic_bsz` is."""
    from dataclasses import fields
    from inspect import getsource

    from verl.trainer.ppo.v1.trainer_base import PPOTrainer
    from verl.workers.config import CriticConfig, FSDPEngineConfig

    defaults = {field.name: field.default for field in fields(CriticConfig)}
    assert defaults["ppo_infer_max_token_len_per_gpu"] == critic.DEFAULT_TOKENS
    assert {field.name: field.default for field in fields(FSDPEngineConfig)}["use_dynamic_bsz"] is True
    source = getsource(PPOTrainer)
    for key in ("infer_max_token_len_per_gpu", "max_token_len_per_gpu"):
        assert f"critic_cfg.engine.{key} = critic_cfg.ppo_infer_max_token_len_per_gpu" in source


# --- time and money ---------------------------------------------------------------------------------------------------


def times(job, work=None, rates=None, instance="p4de"):
    work = work or workload.assumed(job)
    rates = rates or calibration.published_rates(job, work, CATALOGUE)
    return timing.estimate(job, work, CATALOGUE.get(instance), rates, host.estimate(job, work.tokens(job)))


def test_its_two_phases_by_hand():
    job, work = recipe_job(GAE), workload.assumed(recipe_job(GAE))
    rates = timing.Rates({"old": 0.3, "ref": 0.3, "values": 0.25, "teacher": 0.3}, 0.4, 0.5, 2.0, "made up", True, 0.2)
    body = BODY - EMBEDDING  # a lookup is no arithmetic
    second = 8 * CATALOGUE.get("p4de").bf16_flops
    found = times(job, work, rates).phases
    assert found["values"] == pytest.approx(2 * body * work.tokens(job) / (second * 0.25))
    assert found["critic"] == pytest.approx(4 * 2 * body * work.tokens(job) / (second * 0.2))
    as_the_policys = times(job, work, timing.Rates(rates.scoring, 0.4, 0.5, 2.0, "made up", True)).phases
    assert as_the_policys["critic"] == pytest.approx(found["critic"] / 2)
    without = times(job.with_(critic=None), work, rates).phases
    assert {name: found[name] for name in without} == without and set(found) - set(without) == {"values", "critic"}
    twice = job.with_(critic=job.critic.with_(epochs=2))
    assert times(twice, work, rates).phases["critic"] == pytest.approx(2 * found["critic"])
    assert times(job.with_(epochs=3), work, rates).phases["update"] == pytest.approx(3 * found["update"])


def test_a_finished_run_gives_the_critics_rates():
    job = recipe_job(GAE)
    work = workload.assumed(job)
    rates = timing.Rates({"old": 0.3, "ref": 0.35, "values": 0.25, "teacher": 0.2}, 0.4, 0.5, 2.0, "x", True, 0.2)
    seconds = times(job, work, rates).phases
    seconds["generate"] += seconds["environment"]
    run = calibration.Measured(seconds, job, work, CATALOGUE.get("p4de"), "x")
    found = calibration.calibrate(run, otherwise=calibration.published_rates(job, work, CATALOGUE))
    assert found.scoring == pytest.approx(rates.scoring) and found.critic == pytest.approx(0.2)
    without = calibration.Measured(seconds, job.with_(critic=None), work, CATALOGUE.get("p4de"), "x")
    lent = calibration.calibrate(without, otherwise=calibration.published_rates(job, work, CATALOGUE))
    assert lent.scoring["values"] == lent.scoring["old"] and lent.critic is None
    timers = calibration.TIMERS
    assert (timers["values"], timers["update_critic"]) == ("values", "critic")


def test_methods_with_a_critic_are_named_so_and_cost_more():
    job = recipe_job(GAE)
    work = workload.assumed(job)
    rates, place = calibration.published_rates(job, work, CATALOGUE), CATALOGUE.get("p4de")
    rows = comparison.methods(job, work, place, rates)
    plain = comparison.methods(job.with_(critic=None), work, place, rates)
    assert [row.method for row in rows] == ["PPO", "PPO+OPSD", "SDAR on PPO"]
    assert all(ours.hours > theirs.hours for ours, theirs in zip(rows, plain, strict=True))


# --- the verdict ------------------------------------------------------------------------------------------------------


def test_the_recipe_with_a_critic_does_not_fit_p4d_and_what_helps_is_proposed():
    job, place = recipe_job(GAE), CATALOGUE.get("p4d")
    fit = verdict.judge(job, place, memory.estimate(job, place.gpu_bytes), host.estimate(job, TOKENS))
    assert fit.word == "no" and any("critic update phase" in text for text in fit.problems)
    changed, overrides = verdict.solve(job, place, TOKENS)
    assert memory.estimate(changed, place.gpu_bytes).peak < place.gpu_bytes and overrides
    assert recipe_job(GAE, *overrides) == changed


def test_each_change_of_the_critic_is_what_the_configuration_then_is():
    base = (GAE, "critic.model.enable_gradient_checkpointing=false")
    job, kinds = recipe_job(*base), set()
    for change in verdict.changes(job, CATALOGUE.get("p4d"), TOKENS):
        kind = tuple(override.partition("=")[0] for override in change.overrides)
        if kind in kinds or not {key.partition(".")[0] for key in kind} & {"critic", "algorithm"}:
            continue
        kinds.add(kind)
        assert recipe_job(*base, *change.overrides) == change.job, change.overrides
        assert change.memory == memory.estimate(change.job, CATALOGUE.get("p4d").gpu_bytes)
    keys = {key.rpartition(".")[2] for kind in kinds for key in kind}
    assert keys >= {"ppo_max_token_len_per_gpu", "offload_policy", "enable_gradient_checkpointing", "adv_estimator"}


# --- what must hold for any critic ------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(JOBS, CRITICS)
def test_a_critic_never_takes_less(job, value):
    without, with_ = memory.estimate(job, 80 * GIB), memory.estimate(job.with_(critic=value), 80 * GIB)
    for phase in without.phases:
        assert with_.total(phase) >= without.total(phase)
    assert with_.peak >= without.peak
    one, other = host.estimate(job, TOKENS), host.estimate(job.with_(critic=value), TOKENS)
    assert other.memory_peak >= one.memory_peak and other.checkpoint > one.checkpoint
    assert sum(other.disk.values()) >= sum(one.disk.values())


@settings(max_examples=40)
@given(JOBS, CRITICS, st.integers(0, 30_000))
def test_each_saving_of_the_critic_saves(job, value, tokens):
    def never_more(smaller, larger):
        small, large = (memory.estimate(job.with_(critic=c), 80 * GIB) for c in (smaller, larger))
        assert all(small.total(phase) <= large.total(phase) * (1 + 1e-12) for phase in small.phases)

    more = value.update_tokens + tokens
    never_more(value, value.with_(update_tokens=more, score_tokens=value.score_tokens + tokens))
    never_more(value.with_(shards=2 * value.shards), value)
    never_more(value.with_(cpu_offload=True), value)
    never_more(value.with_(param_offload=True, optimizer_offload=True), value)
    never_more(value.with_(checkpointing=True), value)


def test_a_plain_critic_is_one():
    assert plain_critic().model.params == plain_job().model.with_value_head().params
