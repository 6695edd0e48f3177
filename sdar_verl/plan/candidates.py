"""What may be changed about a run that does not fit: Hydra overrides, what each costs, and the run with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from sdar_verl.plan.catalogue import Instance
from sdar_verl.plan.engine import Engine
from sdar_verl.plan.job import Job

_FLOOR = 1024


def with_tokens(job: Job, tokens: int) -> Job:
    """The run with other micro-batches, which hold its longest rows all the same."""
    longest = max(job.row, job.teacher_row)
    return job.with_(update_tokens=max(tokens, job.row), score_tokens=max(tokens, longest))


def tokens_override(tokens: int) -> str:
    """What `with_tokens` is in the configuration; the keys of the scoring passes follow this one."""
    return f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu={tokens}"


Candidate = tuple[tuple[str, ...], str, Callable[[Job], Job]]


def candidates(job: Job, instance: Instance) -> Iterator[Candidate]:
    """What may be changed, the least costly first."""
    actor = "actor_rollout_ref.actor"

    def put(**values: Any) -> Callable[[Job], Job]:
        return lambda current: current.with_(**values)

    least = math.ceil(max(job.row, job.teacher_row) / _FLOOR) * _FLOOR
    tokens = 1 << (max(job.update_tokens, job.score_tokens) - 1).bit_length() >> 1
    for size in _halves(tokens, least):
        overrides = (tokens_override(size),) if job.dynamic else (
            f"{actor}.use_dynamic_bsz=true", tokens_override(size))  # fmt: skip
        yield overrides, "more, smaller micro-batches; the gradient stays the same", (
            lambda current, t=size: with_tokens(current, t).with_(dynamic=True))  # fmt: skip
    if job.update_tokens > least or job.score_tokens > least:
        yield (tokens_override(least),), "the smallest micro-batch that holds the longest row", (
            lambda current: with_tokens(current, least).with_(dynamic=True))  # fmt: skip
    for share in (0.5, 0.4, 0.3):
        if share < job.utilization:
            yield (f"actor_rollout_ref.rollout.gpu_memory_utilization={share}",), "less room for keys and values", put(
                utilization=share)  # fmt: skip
    if job.max_model_len > (longest := max(job.row, job.teacher_row)):
        yield (f"actor_rollout_ref.rollout.max_model_len={longest}",), "nothing: no sequence is longer", put(
            max_model_len=longest)  # fmt: skip
    for tp in (2, 4, 8):
        if tp > job.tp and job.gpus % tp == 0 and tp <= instance.gpus:
            yield (f"actor_rollout_ref.rollout.tensor_model_parallel_size={tp}",), (
                "fewer, larger rollout engines: decoding waits more for other GPUs"), put(tp=tp)  # fmt: skip
    if not job.sleeps and job.device != "cpu":
        yield ("actor_rollout_ref.rollout.free_cache_engine=true",), "seconds a step to wake up", put(sleeps=True)
    if not job.cpu_offload and not (job.param_offload and job.optimizer_offload):
        yield (f"{actor}.fsdp_config.param_offload=true", f"{actor}.fsdp_config.optimizer_offload=true"), (
            "seconds a step to move the training state, and main memory; helps while episodes are played"), put(
            param_offload=True, optimizer_offload=True)  # fmt: skip
    if not job.fused and not job.distribution and job.model.tied:  # else verl's kernel meets a sharded output layer
        yield ("actor_rollout_ref.model.use_fused_kernels=true",), (
            "another kernel for the output layer, which never forms the logits; not run by this project"), put(
            fused=True)  # fmt: skip
    if not job.checkpointing:
        yield ("actor_rollout_ref.model.enable_gradient_checkpointing=true",), "a third more arithmetic", put(
            checkpointing=True)  # fmt: skip
    if job.distribution:
        yield ("sdar.distillation.divergence=sampled_token",), "another objective: sampled tokens alone", put(
            distribution=False)  # fmt: skip
    if not job.cpu_offload:
        yield (f"{actor}.fsdp_config.offload_policy=true",), (
            "training state and optimizer on the host: a minute a step or more for billions of parameters"), put(
            cpu_offload=True, param_offload=False, optimizer_offload=False)  # fmt: skip
    if job.critic is not None:
        yield from _critic_candidates(job, job.critic)
    if job.servers:
        yield from _server_candidates(job, instance)
    if job.reference and job.ref_bytes > 2 and not job.moving_average:
        yield ("actor_rollout_ref.ref.fsdp_config.model_dtype=bf16",), "the reference in half precision", put(
            ref_bytes=2)  # fmt: skip
    if not job.lora_rank and not (job.teacher == "ref" and job.teacher_model is not None):
        # in bfloat16, adapters would lose most steps of a small learning rate
        yield ("actor_rollout_ref.model.lora_rank=32",), (
            "adapters instead of all weights: another model is trained, at 10 to 100 times the learning rate"), put(
            lora_rank=32, lora_targets="all-linear", reference=False)  # fmt: skip


def _critic_candidates(job: Job, critic: Engine) -> Iterator[Candidate]:
    """What may be changed about the critic, the least costly first."""

    def put(**values: Any) -> Callable[[Job], Job]:
        return lambda current: current.with_(critic=current.critic.with_(**values))

    least = math.ceil(job.row / _FLOOR) * _FLOOR
    tokens = 1 << (critic.update_tokens - 1).bit_length() >> 1
    for size in [*_halves(tokens, least), *([least] if critic.update_tokens > least else [])]:
        yield (f"critic.ppo_max_token_len_per_gpu={size}",), "more, smaller micro-batches of the critic", put(
            update_tokens=size, score_tokens=size)  # fmt: skip
    if not critic.cpu_offload and not (critic.param_offload and critic.optimizer_offload):
        yield ("critic.fsdp.param_offload=true", "critic.fsdp.optimizer_offload=true"), (
            "seconds a step to move the critic's state, and main memory; helps while anything else works"), put(
            param_offload=True, optimizer_offload=True)  # fmt: skip
    if not critic.checkpointing:
        yield ("critic.model.enable_gradient_checkpointing=true",), "a third more of the critic's arithmetic", put(
            checkpointing=True)  # fmt: skip
    if not critic.cpu_offload:
        yield ("critic.fsdp.offload_policy=true",), "the critic's state and optimizer on the host: slow", put(
            cpu_offload=True, param_offload=False, optimizer_offload=False)  # fmt: skip
    yield ("algorithm.adv_estimator=grpo", "critic.enable=null"), "no critic: another estimator of advantages", (
        lambda current: current.with_(critic=None))  # fmt: skip


def _server_candidates(job: Job, instance: Instance) -> Iterator[Candidate]:
    """What may be changed about the run's own teacher servers."""
    for share in (0.9, 0.85, 0.7, 0.6):
        if share != job.server_share:
            yield (f"sdar.teacher.server.gpu_memory_utilization={share}",), "another share of a server's GPU", (
                lambda current, share=share: current.with_(server_share=share))  # fmt: skip
    for tp in (2, 4, 8):
        if job.server_tp < tp <= instance.gpus:
            yield (f"sdar.teacher.server.tensor_parallel_size={tp}",), "more GPUs for each teacher server", (
                lambda current, tp=tp: current.with_(server_tp=tp))  # fmt: skip


def _halves(tokens: int, least: int) -> Iterator[int]:
    while tokens >= least:
        yield tokens
        tokens //= 2
