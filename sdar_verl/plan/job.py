"""What of a run's configuration decides memory and time, read from the resolved Hydra configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdar_verl.plan import models
from sdar_verl.plan.critic import critic_from_config
from sdar_verl.plan.engine import Engine, bytes_of, engine_values, micro_batch
from sdar_verl.plan.models import ModelShape
from sdar_verl.plan.units import PlanError

ENTROPY_GATES = ("entropy", "soft_or")  # a run with one of them computes the entropy; a test asks the gates themselves
PLACEMENTS = ("actor", "ref", "rollout", "server", "remote")
OTHERS_WEIGHTS = ("ref", "server", "remote")  # placements that may have another model's weights


@dataclass(frozen=True)
class Job(Engine):
    """Numbers of a run, beside those of its policy's engine (see `Engine`).

    Attributes:
        dynamic: micro-batches are cut by tokens.
        entropy: entropy is part of the update; `compiled`: its kernel is; `fused`: logits are never formed.
        unit_temperature: the sampling temperature is 1, so logits are not copied to scale them.
        kl: rows are scored under the initial policy; `reference`: by a separate model; `ref_bytes`: its kept type.
        critic: the critic's engine, or None; `critic_keep`: its checkpoints that are kept, 0 for all of them.
        teacher: placement, or None without distillation; `teacher_prompt`: its longest prompt.
        teacher_model: another model as teacher, or None for the policy's own.
        servers, server_tp, server_share: teacher servers beside the trainer, GPUs of each, share of their memory.
        distribution: the teacher's whole distributions are compared in the update; `trust_region`: mixed with the
            policy's own.
        moving_average: the reference follows the policy (`sdar.teacher.update_rate`).
        tp, utilization, sleeps, max_num_seqs, max_model_len, rollout_bytes, bucket: the rollout engine's.
        tasks, group, steps, test_every, save_every, keep, stored, panel: batch and schedule; `keep` checkpoints stay on
            the machine, `stored` in S3.
        env, max_turns, agent_workers, env_processes, envs_per_process: environment and its processes on all nodes.
        rows: a row is a turn (``step``) or an episode (``trajectory``).
    """

    device: str
    dynamic: bool
    prompt: int
    response: int
    entropy: bool
    compiled: bool
    fused: bool
    unit_temperature: bool
    kl: bool
    reference: bool
    ref_bytes: int
    critic: Engine | None
    critic_keep: int
    teacher: str | None
    teacher_prompt: int
    teacher_model: ModelShape | None
    servers: int
    server_tp: int
    server_share: float
    distribution: bool
    trust_region: bool
    moving_average: bool
    tp: int
    utilization: float
    sleeps: bool
    max_num_seqs: int
    max_model_len: int
    rollout_bytes: int
    bucket: int
    tasks: int
    group: int
    steps: int
    test_every: int
    save_every: int
    keep: int
    stored: int
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
        if self.server_tp < 1 or self.servers < 0 or not 0 < self.server_share <= 1:
            raise PlanError("sdar.teacher.server needs replicas and GPUs from 1, and a share of memory in (0, 1]")
        if any(engine.epochs < 1 for engine in self.engines):
            raise PlanError("ppo_epochs must be at least 1")

    @property
    def engines(self) -> tuple[Engine, ...]:
        """What is trained: the policy, and the critic where there is one."""
        return (self,) if self.critic is None else (self, self.critic)

    @property
    def scorer(self) -> ModelShape:
        """The model that scores as the teacher."""
        return self.teacher_model or self.model

    @property
    def ref_model(self) -> ModelShape:
        """The model in verl's reference: with ``placement=ref`` the teacher's."""
        return self.scorer if self.teacher == "ref" else self.model

    @property
    def server_gpus(self) -> int:
        """GPUs of teacher servers, beside the trainer's."""
        return self.servers * self.server_tp

    @property
    def replicas(self) -> int:
        """Rollout engines."""
        return self.gpus // self.tp

    @property
    def episodes(self) -> int:
        """Training episodes of a step."""
        return self.tasks * self.group

    @property
    def written(self) -> int:
        """Checkpoints that the run writes; the last step has one, unless none is saved at all."""
        return math.ceil(self.steps / self.save_every) if self.save_every > 0 else 0

    @property
    def row(self) -> int:
        """Longest training row."""
        return self.prompt + self.response

    @property
    def teacher_row(self) -> int:
        """Longest row that the teacher scores; 0 without one."""
        return self.teacher_prompt + self.response if self.teacher else 0


def job_from_config(
    config: Mapping[str, Any], model: ModelShape, *, teacher: Path | None = None, critic: Path | None = None
) -> Job:
    """Read a resolved configuration (see `sdar_verl.plan.compose`).

    Args:
        model: the policy's.
        teacher, critic: ``config.json`` of a teacher or a critic that is another model, and not a shipped one.

    Raises:
        PlanError: a key is missing (it is named), or the run cannot be planned.
    """
    try:
        return _read(config, model, teacher, critic)
    except KeyError as missing:
        raise PlanError(f"the configuration has no key {missing.args[0]!r}; start from sdar_verl's own") from None


def _read(config: Mapping[str, Any], model: ModelShape, teacher_file: Path | None, critic_file: Path | None) -> Job:
    parts, trainer, sdar, env = config["actor_rollout_ref"], config["trainer"], config["sdar"], config["env"]
    actor, ref, rollout, hf = parts["actor"], parts["ref"], parts["rollout"], parts["model"]
    fsdp, nodes = actor["fsdp_config"], trainer["nnodes"]
    gpus = nodes * trainer["n_gpus_per_node"]
    engine = engine_values(actor, fsdp, hf, gpus, "actor")
    rank = engine["lora_rank"]
    distils = sdar["distillation"]["enabled"]
    kl = actor["use_kl_loss"] or config["algorithm"]["use_kl_in_reward"]
    prompt, response = rollout["prompt_length"], rollout["response_length"]
    teacher_row = sdar["teacher"]["max_prompt_length"] + response if distils else 0
    update = micro_batch(
        actor["use_dynamic_bsz"], actor["ppo_max_token_len_per_gpu"], actor.get("ppo_micro_batch_size_per_gpu"),
        prompt + response, "actor.ppo_micro_batch_size_per_gpu",
    )  # fmt: skip
    score = micro_batch(
        rollout["log_prob_use_dynamic_bsz"], rollout["log_prob_max_token_len_per_gpu"],
        rollout.get("log_prob_micro_batch_size_per_gpu"), max(prompt + response, teacher_row),
        "rollout.log_prob_micro_batch_size_per_gpu",
    )  # fmt: skip
    if kl and not rank:
        score = max(score, micro_batch(
            ref["log_prob_use_dynamic_bsz"], ref["log_prob_max_token_len_per_gpu"],
            ref.get("log_prob_micro_batch_size_per_gpu"), prompt + response, "ref.log_prob_micro_batch_size_per_gpu",
        ))  # fmt: skip
    other = _other_teacher(sdar["teacher"], distils, teacher_file)
    if other is not None and sdar["teacher"]["placement"] == "ref" and (rank or not kl):
        raise PlanError(
            "another model as teacher with sdar.teacher.placement=ref takes the place of the reference model; set "
            "actor_rollout_ref.actor.use_kl_loss=true with kl_loss_coef=0, and lora_rank=0"
        )
    serves = distils and sdar["teacher"]["placement"] == "server"
    server = sdar["teacher"]["server"]
    on_gpu = trainer["device"] != "cpu"
    pool, workers = env["pool"], rollout["agent"]["num_workers"]
    return Job(
        model=model,
        gpus=gpus,
        nodes=nodes,
        **engine,
        mini_rows=actor["ppo_mini_batch_size"] * rollout["n"],
        device=trainer["device"],
        dynamic=bool(actor["use_dynamic_bsz"]),
        update_tokens=update,
        score_tokens=score,
        prompt=prompt,
        response=response,
        entropy=bool(actor["entropy_coeff"] or actor["calculate_entropy"])
        or (distils and sdar["distillation"]["gate"] in ENTROPY_GATES),
        compiled=bool(fsdp["use_torch_compile"]),
        fused=bool(hf["use_fused_kernels"]),
        unit_temperature=rollout["temperature"] == 1,
        kl=bool(kl),
        reference=bool(kl) and not rank,
        ref_bytes=bytes_of(ref["fsdp_config"]["model_dtype"] or "bf16"),
        critic=critic_from_config(config, model, gpus, critic_file),
        critic_keep=trainer.get("max_critic_ckpt_to_keep") or 0,
        teacher=sdar["teacher"]["placement"] if distils else None,
        teacher_prompt=sdar["teacher"]["max_prompt_length"],
        teacher_model=other,
        servers=server["replicas"] if serves else 0,
        server_tp=server["tensor_parallel_size"],
        server_share=float(server["gpu_memory_utilization"]),
        distribution=distils and sdar["distillation"]["divergence"] in ("full", "topk"),
        trust_region=distils and sdar["teacher"]["trust_region"] is not None,
        moving_average=sdar["teacher"]["update_rate"] is not None,
        tp=rollout["tensor_model_parallel_size"],
        utilization=float(rollout["gpu_memory_utilization"]),
        sleeps=bool(rollout["free_cache_engine"]) and bool(rollout.get("enable_sleep_mode", True)) and on_gpu,
        max_num_seqs=rollout["max_num_seqs"],
        max_model_len=rollout["max_model_len"] or model.max_positions,
        rollout_bytes=bytes_of(rollout["dtype"]),
        bucket=rollout["checkpoint_engine"]["update_weights_bucket_megabytes"] << 20,
        tasks=config["data"]["train_batch_size"],
        group=rollout["n"],
        steps=_steps(trainer),
        test_every=trainer["test_freq"],
        save_every=trainer["save_freq"],
        keep=trainer["max_actor_ckpt_to_keep"] or 0,
        stored=sdar["checkpoints"]["keep"],
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


def _other_teacher(teacher: Mapping[str, Any], distils: bool, file: Path | None) -> ModelShape | None:
    """The model of ``sdar.teacher.model_path``; None for the policy's own weights."""
    path, placement = teacher["model_path"], teacher["placement"]
    if path is None:
        return None
    if not path:
        raise PlanError("sdar.teacher.model_path is not set; name the teacher's model (a folder or a hub's name)")
    if not distils or placement not in OTHERS_WEIGHTS:
        raise PlanError(
            "sdar.teacher.model_path has no use with "
            + (f"sdar.teacher.placement={placement}" if distils else "sdar.distillation.enabled=false")
            + f"; another model can be a teacher with placement={', '.join(OTHERS_WEIGHTS)}"
        )
    return models.load(path, file, flag="--teacher-config")


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
