"""Seconds of a step by phase, from arithmetic and a few measured rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdar_verl.plan.catalogue import Instance
from sdar_verl.plan.engine import Engine
from sdar_verl.plan.host import Host
from sdar_verl.plan.job import Job
from sdar_verl.plan.models import ModelShape
from sdar_verl.plan.units import HOUR
from sdar_verl.plan.workload import Workload

PHASES = ("generate", "environment", "old", "ref", "values", "teacher", "critic", "update", "sync", "other")
SCORING = ("old", "ref", "values", "teacher")  # passes of the training engines without gradient
LAUNCH_SECONDS = 0.004  # of one decoding step beside what memory bandwidth asks for
PREFILL_SHARE = 0.4  # of peak arithmetic while prompts are read
SYNC_RATE = 10e9  # bytes a second from the trainer's shards into the engines of one GPU
SAVE_RATE = 1e9  # bytes a second to the local disk of one machine
PCIE_RATE = 12e9  # bytes a second between host and one GPU
HOST_RATE = 100e9  # bytes a second of a machine's memory in an optimizer step on the CPU
START_SECONDS = 600.0  # Ray, weights, engines, environments, first validation's warm-up


@dataclass(frozen=True)
class Rates:
    """Shares of what the hardware could do at best.

    Attributes:
        scoring: of peak arithmetic, for each of `SCORING`.
        update: likewise.
        generate: of the time that memory bandwidth and arithmetic alone would need.
        other: seconds of a step that belong to no phase.
        source: what was measured.
        measured: whether it was on this kind of hardware.
        critic: as `update`, of the critic's; None where nothing else is known than the policy's.
        served: of peak arithmetic, while teacher servers read prompts.
    """

    scoring: Mapping[str, float]
    update: float
    generate: float
    other: float
    source: str
    measured: bool
    critic: float | None = None
    served: float = PREFILL_SHARE


@dataclass(frozen=True)
class Times:
    """Attributes (seconds):
    phases: of one step.
    validation, save, start: one evaluation, one checkpoint, the start of the run.
    evaluations, saves, steps: how many of each the run has.
    """

    phases: dict[str, float]
    validation: float
    save: float
    start: float
    evaluations: int
    saves: int
    steps: int

    @property
    def step(self) -> float:
        """One training step."""
        return sum(self.phases.values())

    @property
    def hours_without_saves(self) -> float:
        """The run without its checkpoints."""
        return (self.steps * self.step + self.evaluations * self.validation + self.start) / HOUR

    @property
    def hours(self) -> float:
        """The whole run, uninterrupted."""
        return self.hours_without_saves + self.saves * self.save / HOUR


def model_flops(model: ModelShape, tokens: float) -> float:
    """Multiplications and additions of a forward pass: two for each parameter and token; a lookup is none."""
    return 2 * (model.active - (0 if model.tied else model.embedding)) * tokens


def forward_flops(engine: Engine, tokens: float) -> float:
    """Those of a trained model's forward pass."""
    return model_flops(engine.model, tokens)


def update_flops(engine: Engine, tokens: float) -> float:
    """Of each epoch: forward, backward (twice a forward; once if adapters alone have gradients), recomputed blocks."""
    passes = 1 + (1 if engine.lora_rank else 2) + (1 if engine.checkpointing else 0)
    return engine.epochs * passes * forward_flops(engine, tokens)


def scoring_flops(job: Job, work: Workload) -> dict[str, float]:
    """Arithmetic of a step's passes without gradient in the training engines, by phase (see `SCORING`)."""
    tokens = work.tokens(job)
    flops = {"old": forward_flops(job, tokens)}
    if job.kl:
        flops["ref"] = model_flops(job.ref_model, tokens)
    if job.critic is not None:
        flops["values"] = forward_flops(job.critic, tokens)
    if job.teacher in ("actor", "ref"):
        flops["teacher"] = teacher_flops(job, work)
    return flops


def teacher_flops(job: Job, work: Workload) -> float:
    """Arithmetic of one pass of the teacher over a step's rows, wherever it is."""
    return model_flops(job.scorer, work.teacher_tokens(job))


def generation_bound(job: Job, work: Workload, instance: Instance, episodes: int) -> float:
    """Seconds to play `episodes` at once, by memory bandwidth and arithmetic alone; the longest episode decides."""
    turns = max(work.turns, job.max_turns)
    playing = episodes / job.replicas
    context = work.prompt + work.answer / 2
    read = job.rollout_bytes * job.model.params / job.tp
    read += playing * context * job.model.kv_bytes_per_token(job.rollout_bytes) / min(job.tp, job.model.kv_heads)
    decoding = turns * work.answer * (read / instance.memory_rate + LAUNCH_SECONDS)
    prompts = forward_flops(job, episodes * work.turns * work.prompt)
    return decoding + prompts / (job.gpus * instance.bf16_flops * PREFILL_SHARE)


def prefill_seconds(job: Job, work: Workload, instance: Instance) -> float:
    """Seconds in which the rollout engines read the teacher's rows."""
    return teacher_flops(job, work) / (job.gpus * instance.bf16_flops * PREFILL_SHARE)


def served_seconds(job: Job, work: Workload, instance: Instance, rates: Rates) -> float:
    """Seconds in which the run's own teacher servers read a step's rows, after all of its episodes have ended."""
    return teacher_flops(job, work) / (job.server_gpus * instance.bf16_flops * rates.served)


def tail_seconds(job: Job, work: Workload, generate: float) -> float:
    """Part of `generate` seconds in which the longest episodes play and the others have ended."""
    return generate * (1 - work.turns / max(work.turns, job.max_turns))


def environment_seconds(job: Job, work: Workload, episodes: int) -> float:
    """Seconds in which episodes wait for their environments, which share processes."""
    at_once = max(1.0, episodes / max(1, job.env_processes))
    return max(work.turns, job.max_turns) * work.step_seconds * at_once


def estimate(job: Job, work: Workload, instance: Instance, rates: Rates, host: Host) -> Times:
    """Times of a run on one kind of instance."""
    peak = job.gpus * instance.bf16_flops
    tokens, episodes = work.tokens(job), job.episodes
    phases = dict.fromkeys(PHASES, 0.0) | {
        "generate": generation_bound(job, work, instance, episodes) / rates.generate,
        "environment": environment_seconds(job, work, episodes),
        **{name: flops / (peak * rates.scoring[name]) for name, flops in scoring_flops(job, work).items()},
        "update": update_flops(job, tokens) / (peak * rates.update),
        "sync": job.rollout_bytes * job.model.params / job.tp / SYNC_RATE,
        "other": rates.other,
    }
    if job.servers:
        phases["teacher"] = served_seconds(job, work, instance, rates)
    if job.critic is not None:
        phases["critic"] = update_flops(job.critic, tokens) / (peak * (rates.critic or rates.update))
    if job.teacher == "rollout":
        phases["generate"] += max(
            0.0, prefill_seconds(job, work, instance) - tail_seconds(job, work, phases["generate"])
        )
    if job.distribution:  # the teacher reads its rows once more inside the update
        phases["update"] += job.epochs * teacher_flops(job, work) / (peak * rates.update)
    for engine, phase in zip(job.engines, ("update", "critic"), strict=False):
        if engine.cpu_offload:
            phases[phase] += _on_the_host(engine, work.rows(job), tokens)
        phases["sync"] += _moved(engine)
    panel = job.panel or episodes
    playing = generation_bound(job, work, instance, panel) / rates.generate + environment_seconds(job, work, panel)
    return Times(
        phases={name: phases[name] for name in PHASES if phases[name] > 0},
        validation=playing,
        save=host.checkpoint / job.nodes / SAVE_RATE,
        start=START_SECONDS,
        evaluations=job.steps // job.test_every + 1 if job.test_every > 0 else 0,
        saves=job.steps // job.save_every if job.save_every > 0 else 0,
        steps=job.steps,
    )


def _on_the_host(engine: Engine, rows: float, tokens: float) -> float:
    """Seconds of a step that FSDP2's offload policy adds: AdamW in main memory, weights and gradients over PCIe."""
    updates = max(1.0, rows / engine.mini_rows)
    passes = max(1.0, tokens / (engine.gpus * engine.update_tokens))
    adam = 7 * engine.weight_bytes * engine.trainable / (HOST_RATE * engine.nodes)  # four read, three written
    moved = engine.weight_bytes * (2 * engine.kept + engine.trainable) / engine.gpus / PCIE_RATE
    return engine.epochs * (updates * adam + passes * moved)


def _moved(engine: Engine) -> float:
    """Seconds of a step in which verl moves training state between host and GPU: scoring and update, there and back."""
    weights = engine.weight_bytes * engine.kept / engine.shards
    moments = 2 * engine.weight_bytes * engine.trainable / engine.shards
    return (4 * weights * engine.param_offload + 2 * moments * engine.optimizer_offload) / PCIE_RATE
