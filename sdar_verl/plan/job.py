"""What of a run's configuration decides memory and time, read from the resolved Hydra configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sdar_verl.plan.models import ModelShape
from sdar_verl.plan.units import PlanError

BYTES = {"fp32": 4, "float32": 4, "float": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2, "half": 2}
ENTROPY_GATES = ("entropy", "soft_or")  # a run with one of them computes the entropy; a test asks the gates themselves
PLACEMENTS = ("actor", "ref", "rollout", "server", "remote")


@dataclass(frozen=True)
class Job:
    """Numbers of a run; lengths and micro-batches in tokens, sizes of types in bytes.

    Attributes:
        gpus, nodes: GPUs in all, and on how many machines.
        shards: GPUs that share one copy of the training state (`fsdp_size`, or all).
        weight_bytes, compute_bytes, reduce_bytes: of the kept weights, the forward pass, the gradients' exchange.
        param_offload, optimizer_offload: verl's own moving to the host between phases.
        cpu_offload: FSDP2's offload policy; training state lives on the host, always.
        reshards: gathered weights are given up after each block; else all of them stay.
        lora_rank, lora_targets: 0 trains all weights.
        dynamic: micro-batches are cut by tokens.
        update_tokens, score_tokens: most tokens of a micro-batch on one GPU with and without gradient.
        entropy: entropy is part of the update; `compiled`: its kernel is; `fused`: logits are never formed.
        unit_temperature: the sampling temperature is 1, so logits are not copied to scale them.
        kl: rows are scored under the initial policy; `reference`: by a separate model; `ref_bytes`: its kept type.
        teacher: placement, or None without distillation; `teacher_prompt`: its longest prompt.
        distribution: the teacher's whole distributions are compared in the update.
        moving_average: the reference follows the policy (`sdar.teacher.update_rate`).
        tp, utilization, sleeps, max_num_seqs, max_model_len, rollout_bytes, bucket: the rollout engine's.
        mini_rows: rows of one optimizer step.
        tasks, group, steps, test_every, save_every, keep, panel: batch and schedule.
        env, max_turns, agent_workers, env_processes, envs_per_process: environment and its processes on all nodes.
        rows: a row is a turn (``step``) or an episode (``trajectory``).
    """

    model: ModelShape
    device: str
    gpus: int
    nodes: int
    shards: int
    weight_bytes: int
    compute_bytes: int
    reduce_bytes: int
    param_offload: bool
    optimizer_offload: bool
    cpu_offload: bool
    reshards: bool
    checkpointing: bool
    activation_offload: bool
    lora_rank: int
    lora_targets: str | tuple[str, ...]
    dynamic: bool
    update_tokens: int
    score_tokens: int
    prompt: int
    response: int
    entropy: bool
    compiled: bool
    fused: bool
    unit_temperature: bool
    kl: bool
    reference: bool
    ref_bytes: int
    teacher: str | None
    teacher_prompt: int
    distribution: bool
    moving_average: bool
    tp: int
    utilization: float
    sleeps: bool
    max_num_seqs: int
    max_model_len: int
    rollout_bytes: int
    bucket: int
    mini_rows: int
    tasks: int
    group: int
    steps: int
    test_every: int
    save_every: int
    keep: int
    panel: int
    method: str
    env: str
    max_turns: int
    agent_workers: int
    env_processes: int
    envs_per_process: int
    rows: str
    skills_store: str
    skills_retriever: str

    def __post_init__(self) -> None:
        if min(self.gpus, self.nodes, self.tp, self.shards) < 1 or self.gpus % self.nodes:
            raise PlanError("GPUs, nodes, shards and tensor_model_parallel_size must be at least 1 and divide evenly")
        if self.gpus % self.tp:
            raise PlanError(
                f"rollout.tensor_model_parallel_size={self.tp} does not divide {self.gpus} GPUs; lower it or add GPUs"
            )
        if not 0 < self.utilization <= 1:
            raise PlanError(f"rollout.gpu_memory_utilization={self.utilization} must lie in (0, 1]")
        if self.teacher is not None and self.teacher not in PLACEMENTS:
            raise PlanError(f"sdar.teacher.placement={self.teacher!r} is unknown; known: {', '.join(PLACEMENTS)}")

    @property
    def trainable(self) -> int:
        """Parameters that get gradients."""
        return self.model.lora_params(self.lora_rank, self.lora_targets) if self.lora_rank else self.model.params

    @property
    def kept(self) -> int:
        """Parameters that the training engine keeps, adapters included."""
        return self.model.params + (self.trainable if self.lora_rank else 0)

    @property
    def replicas(self) -> int:
        """Rollout engines."""
        return self.gpus // self.tp

    @property
    def episodes(self) -> int:
        """Training episodes of a step."""
        return self.tasks * self.group

    @property
    def row(self) -> int:
        """Longest training row."""
        return self.prompt + self.response

    @property
    def teacher_row(self) -> int:
        """Longest row that the teacher scores; 0 without one."""
        return self.teacher_prompt + self.response if self.teacher else 0

    def with_(self, **changes: Any) -> Job:
        """A copy with other numbers."""
        return replace(self, **changes)


def job_from_config(config: Mapping[str, Any], model: ModelShape) -> Job:
    """Read a resolved configuration (see `sdar_verl.plan.compose`); raises `PlanError` that names a missing key."""
    try:
        return _read(config, model)
    except KeyError as missing:
        raise PlanError(f"the configuration has no key {missing.args[0]!r}; start from sdar_verl's own") from None


def _read(config: Mapping[str, Any], model: ModelShape) -> Job:
    parts, trainer, sdar, env = config["actor_rollout_ref"], config["trainer"], config["sdar"], config["env"]
    actor, ref, rollout, hf = parts["actor"], parts["ref"], parts["rollout"], parts["model"]
    engine, nodes = actor["fsdp_config"], trainer["nnodes"]
    if actor["strategy"] not in ("fsdp", "fsdp2"):
        raise PlanError(f"actor.strategy={actor['strategy']} is not planned for; known: fsdp, fsdp2")
    gpus = nodes * trainer["n_gpus_per_node"]
    mixed = engine.get("mixed_precision") or {}
    rank = int(hf.get("lora_rank") or (hf.get("lora") or {}).get("rank") or 0)
    if not rank and hf.get("lora_adapter_path"):
        raise PlanError("the rank of lora_adapter_path is in the adapter's own file; give model.lora_rank=<rank> too")
    targets = hf.get("target_modules") or "all-linear"
    distils = sdar["distillation"]["enabled"]
    kl = actor["use_kl_loss"] or config["algorithm"]["use_kl_in_reward"]
    prompt, response = rollout["prompt_length"], rollout["response_length"]
    teacher_row = sdar["teacher"]["max_prompt_length"] + response if distils else 0
    update = _micro_batch(
        actor["use_dynamic_bsz"], actor["ppo_max_token_len_per_gpu"], actor.get("ppo_micro_batch_size_per_gpu"),
        prompt + response, "actor.ppo_micro_batch_size_per_gpu",
    )  # fmt: skip
    score = _micro_batch(
        rollout["log_prob_use_dynamic_bsz"], rollout["log_prob_max_token_len_per_gpu"],
        rollout.get("log_prob_micro_batch_size_per_gpu"), max(prompt + response, teacher_row),
        "rollout.log_prob_micro_batch_size_per_gpu",
    )  # fmt: skip
    if kl and not rank:
        score = max(score, _micro_batch(
            ref["log_prob_use_dynamic_bsz"], ref["log_prob_max_token_len_per_gpu"],
            ref.get("log_prob_micro_batch_size_per_gpu"), prompt + response, "ref.log_prob_micro_batch_size_per_gpu",
        ))  # fmt: skip
    if sdar["teacher"]["model_path"] is not None:
        raise PlanError("another model as teacher (sdar.teacher.model_path) is not planned for yet; plan without it")
    if distils and sdar["teacher"]["placement"] == "server":
        raise PlanError(
            "sdar.teacher.placement=server takes GPUs beside the trainer's, which is not planned for yet; plan with "
            "placement=remote, and add the servers' GPUs yourself"
        )
    if config["algorithm"]["adv_estimator"] == "gae":
        raise PlanError("a critic (algorithm.adv_estimator=gae) is not planned for yet; plan with adv_estimator=grpo")
    on_gpu = trainer["device"] != "cpu"
    pool, workers = env["pool"], rollout["agent"]["num_workers"]
    return Job(
        model=model,
        device=trainer["device"],
        gpus=gpus,
        nodes=nodes,
        shards=engine["fsdp_size"] if engine["fsdp_size"] > 0 else gpus,
        weight_bytes=_bytes(engine["model_dtype"] or "fp32"),
        compute_bytes=_bytes(mixed.get("param_dtype", "bf16")),
        reduce_bytes=_bytes(mixed.get("reduce_dtype", "fp32")),
        param_offload=bool(engine["param_offload"]),
        optimizer_offload=bool(engine["optimizer_offload"]),
        cpu_offload=bool(engine["offload_policy"]) and actor["strategy"] == "fsdp2",
        reshards=bool(engine["reshard_after_forward"]),
        checkpointing=bool(hf["enable_gradient_checkpointing"]),
        activation_offload=bool(hf["enable_activation_offload"]),
        lora_rank=rank,
        lora_targets=targets if isinstance(targets, str) else tuple(targets),
        dynamic=bool(actor["use_dynamic_bsz"]),
        update_tokens=update,
        score_tokens=score,
        prompt=prompt,
        response=response,
        entropy=bool(actor["entropy_coeff"] or actor["calculate_entropy"])
        or (distils and sdar["distillation"]["gate"] in ENTROPY_GATES),
        compiled=bool(engine["use_torch_compile"]),
        fused=bool(hf["use_fused_kernels"]),
        unit_temperature=rollout["temperature"] == 1,
        kl=bool(kl),
        reference=bool(kl) and not rank,
        ref_bytes=_bytes(ref["fsdp_config"]["model_dtype"] or "bf16"),
        teacher=sdar["teacher"]["placement"] if distils else None,
        teacher_prompt=sdar["teacher"]["max_prompt_length"],
        distribution=distils and sdar["distillation"]["divergence"] in ("full", "topk"),
        moving_average=sdar["teacher"]["update_rate"] is not None,
        tp=rollout["tensor_model_parallel_size"],
        utilization=float(rollout["gpu_memory_utilization"]),
        sleeps=bool(rollout["free_cache_engine"]) and bool(rollout.get("enable_sleep_mode", True)) and on_gpu,
        max_num_seqs=rollout["max_num_seqs"],
        max_model_len=rollout["max_model_len"] or model.max_positions,
        rollout_bytes=_bytes(rollout["dtype"]),
        bucket=rollout["checkpoint_engine"]["update_weights_bucket_megabytes"] << 20,
        mini_rows=actor["ppo_mini_batch_size"] * rollout["n"],
        tasks=config["data"]["train_batch_size"],
        group=rollout["n"],
        steps=_steps(trainer),
        test_every=trainer["test_freq"],
        save_every=trainer["save_freq"],
        keep=trainer["max_actor_ckpt_to_keep"] or 0,
        panel=sdar["panel"]["size"] or 0,
        method=sdar["method"],
        env=env["name"],
        max_turns=_turns(env),
        agent_workers=workers,
        env_processes=workers * pool["workers"],
        envs_per_process=pool["envs_per_worker"],
        rows=sdar["rows"],
        skills_store=str(sdar["skills"]["store"]),
        skills_retriever=sdar["skills"]["retriever"],
    )


def _bytes(name: str) -> int:
    if name not in BYTES:
        raise PlanError(f"the type {name!r} is unknown; known: {', '.join(BYTES)}")
    return BYTES[name]


def _micro_batch(dynamic: bool, tokens: int, rows: int | None, longest: int, key: str) -> int:
    """Most tokens of a micro-batch on one GPU: by tokens (never less than one row), or rows of the longest kind."""
    if dynamic:
        return max(tokens, longest)
    if not rows:
        raise PlanError(f"without use_dynamic_bsz=true {key} must say how many rows a micro-batch has")
    return rows * longest


def _turns(env: Mapping[str, Any]) -> int:
    turns = env[env["name"]].get("max_steps")
    if not turns:
        raise PlanError(f"env.{env['name']}.max_steps is not set, so an episode has no end to plan for; set it")
    return int(turns)


def _steps(trainer: Mapping[str, Any]) -> int:
    steps = trainer["total_training_steps"]
    if not steps or not math.isfinite(steps):
        raise PlanError("trainer.total_training_steps is not set, so the run has no end to plan for; set it")
    return int(steps)
