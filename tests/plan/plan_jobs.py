"""Jobs for tests of the planner: a plain full fine-tune without teacher and reference, from which tests deviate."""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from pathlib import Path

from hypothesis import strategies as st

from sdar_verl.plan import compose, models
from sdar_verl.plan.engine import Engine
from sdar_verl.plan.job import Job, job_from_config

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "alfworld" / "qwen2.5_7b.sh"


def plain_job(model="Qwen/Qwen2.5-7B-Instruct", gpus=8, **changes):
    shape = models.load(model) if isinstance(model, str) else model
    job = Job(
        model=shape,
        device="cuda",
        gpus=gpus,
        nodes=1,
        shards=gpus,
        weight_bytes=4,
        compute_bytes=2,
        reduce_bytes=4,
        param_offload=False,
        optimizer_offload=False,
        cpu_offload=False,
        reshards=True,
        checkpointing=True,
        activation_offload=False,
        lora_rank=0,
        lora_targets="all-linear",
        dynamic=True,
        update_tokens=8192,
        score_tokens=8192,
        prompt=2048,
        response=512,
        entropy=True,
        compiled=True,
        fused=False,
        unit_temperature=True,
        kl=False,
        reference=False,
        ref_bytes=2,
        critic=None,
        critic_keep=2,
        teacher=None,
        teacher_prompt=4096,
        teacher_model=None,
        servers=0,
        server_tp=1,
        server_share=0.85,
        distribution=False,
        trust_region=False,
        moving_average=False,
        tp=1,
        utilization=0.5,
        sleeps=True,
        max_num_seqs=256,
        max_model_len=8192,
        rollout_bytes=2,
        bucket=2 << 30,
        mini_rows=256,
        epochs=1,
        saves=("model", "optimizer", "extra"),
        saves_adapters_alone=False,
        tasks=16,
        group=8,
        steps=150,
        test_every=5,
        save_every=10,
        keep=2,
        stored=2,
        panel=128,
        method="grpo",
        env="alfworld",
        max_turns=50,
        agent_workers=8,
        env_processes=32,
        envs_per_process=8,
        rows="step",
        skills_store="alfworld",
        skills_retriever="rules",
    )
    return job.with_(**changes)


@lru_cache
def recipe_job(*overrides):
    """The job of the 7B recipe with overrides, composed by the recipe itself."""
    config = compose.compose(RECIPE, list(overrides))
    return job_from_config(config, models.load(config["actor_rollout_ref"]["model"]["path"]))


# any job that a plan could be asked for
JOBS = st.builds(
    plain_job,
    model=st.sampled_from(list(models.known_models())),
    gpus=st.sampled_from([1, 2, 4, 8, 16]),
    update_tokens=st.integers(2560, 65536),
    score_tokens=st.integers(4608, 65536),
    entropy=st.booleans(),
    compiled=st.booleans(),
    checkpointing=st.booleans(),
    activation_offload=st.booleans(),
    lora_rank=st.sampled_from([0, 8, 64]),
    weight_bytes=st.sampled_from([2, 4]),
    teacher=st.sampled_from([None, "actor", "ref", "rollout", "remote"]),
    reference=st.booleans(),
    sleeps=st.booleans(),
    utilization=st.floats(0.1, 0.95),
    param_offload=st.booleans(),
    optimizer_offload=st.booleans(),
    cpu_offload=st.booleans(),
)


def plain_critic(model="Qwen/Qwen2.5-7B-Instruct", **changes):
    """A critic made of a model, with the settings of `plain_job`."""
    policy = plain_job(model)
    values = {field.name: getattr(policy, field.name) for field in fields(Engine)}
    return Engine(**{**values, "model": policy.model.with_value_head(), **changes})


CRITICS = st.builds(
    plain_critic,
    model=st.sampled_from(list(models.known_models())),
    shards=st.sampled_from([1, 2, 8]),
    update_tokens=st.integers(2560, 65536),
    score_tokens=st.integers(2560, 65536),
    checkpointing=st.booleans(),
    lora_rank=st.sampled_from([0, 8]),
    weight_bytes=st.sampled_from([2, 4]),
    param_offload=st.booleans(),
    optimizer_offload=st.booleans(),
    cpu_offload=st.booleans(),
)
