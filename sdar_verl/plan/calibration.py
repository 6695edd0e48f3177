"""Rates from measured phases: those of a published run by default, those of a finished run of one's own if given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from sdar_verl.plan import memory, models
from sdar_verl.plan.catalogue import Catalogue, Instance
from sdar_verl.plan.job import Job, job_from_config
from sdar_verl.plan.timing import (
    SCORING,
    Rates,
    environment_seconds,
    generation_bound,
    scoring_flops,
    served_seconds,
    update_flops,
)
from sdar_verl.plan.units import GIB, PlanError, shipped
from sdar_verl.plan.workload import Workload, within
from sdar_verl.report.run import Run, load_run

# the run's own timers (sdar_verl.report.timing) to the planner's phases
TIMERS = {
    "gen": "generate",
    "old_log_prob": "old",
    "ref": "ref",
    "values": "values",
    "teacher": "teacher",
    "update_critic": "critic",
    "update_actor": "update",
    "update_weights": "sync",
}
_MEMORY = "actor/perf/max_memory_allocated_gb"  # GiB, whatever verl calls it
_NOT_TENSORS = ("reserve", "rollout weights", "rollout workspace", "KV cache")
_WARM_UP = 1  # first steps, which compile and fill caches


@dataclass(frozen=True)
class Measured:
    """Seconds of a step by phase (environment inside ``generate``), of a job with a workload on an instance."""

    seconds: Mapping[str, float]
    job: Job
    work: Workload
    instance: Instance
    source: str


def calibrate(run: Measured, otherwise: Rates | None = None) -> Rates:
    """Shares of the hardware's best that explain the seconds; phases that were not timed take `otherwise`'s.

    Without `otherwise`, scoring phases that were not timed take the rate of the old log-probabilities.
    """
    job, work, seconds = run.job, run.work, run.seconds
    if missing := [name for name in ("generate", "old", "update") if not seconds.get(name, 0) > 0]:
        raise PlanError(f"{run.source}: no seconds for {', '.join(missing)}; the run has not made a whole step")
    peak, tokens = job.gpus * run.instance.bf16_flops, work.tokens(job)
    scoring = {
        name: flops / (peak * seconds[name])
        for name, flops in scoring_flops(job, work).items()
        if seconds.get(name, 0) > 0
    }
    fallback = dict.fromkeys(SCORING, scoring["old"]) | (dict(otherwise.scoring) if otherwise else {})
    fallback["values"] = scoring["old"]  # a pass like this one, on the same hardware
    playing = max(seconds["generate"] - environment_seconds(job, work, job.episodes), 0.1 * seconds["generate"])
    rates = Rates(
        scoring={name: scoring.get(name, fallback[name]) for name in SCORING},
        update=update_flops(job, tokens) / (peak * seconds["update"]),
        generate=generation_bound(job, work, run.instance, job.episodes) / playing,
        other=seconds.get("other", 0.0),
        source=run.source,
        measured=otherwise is not None,
    )
    if job.critic is not None and seconds.get("critic", 0) > 0:
        rates = replace(rates, critic=update_flops(job.critic, tokens) / (peak * seconds["critic"]))
    if job.servers and seconds.get("teacher", 0) > 0:
        best = served_seconds(job, work, run.instance, replace(rates, served=1.0))
        rates = replace(rates, served=best / seconds["teacher"])
    return rates


def published_rates(job: Job, work: Workload, catalogue: Catalogue) -> Rates:
    """What the published reference run implies; `job` and `work` lend the settings that it shares."""
    data = shipped("reference_run")
    model = models.load(data["model"])
    past = replace(
        job, model=model, gpus=data["gpus"], nodes=1, shards=data["gpus"], tp=data["tp"], lora_rank=0, tasks=16,
        group=8, rows="step", prompt=2048, response=512, max_turns=50, checkpointing=True, rollout_bytes=2,
        kl=True, critic=None, teacher_model=None, servers=0, epochs=1,
    )  # fmt: skip
    row = shipped("workloads")["alfworld"]
    turns = data["tokens"] / past.episodes / (row["prompt"] + row["answer"])
    then = replace(work, turns=turns, prompt=row["prompt"], answer=row["answer"], step_seconds=row["step_seconds"])
    return calibrate(Measured(data["seconds"], past, then, catalogue.get(data["instance"]), data["source"]))


def from_run(
    folder: Path,
    job: Job,
    work: Workload,
    rates: Rates,
    *,
    instance: Instance | None,
    model_config: Path | None,
    teacher_config: Path | None = None,
    critic_config: Path | None = None,
) -> tuple[Workload, Rates, list[str]]:
    """What a finished run says about a plan: its episodes, and its rates where it ran on GPUs.

    Returns:
        workload, rates, and remarks: how the arithmetic's memory for that run compares with what it used.

    A run on a CPU says nothing about a GPU's speed; its episodes are taken all the same.

    Raises:
        PlanError: the run left no manifest or no timed step, played another environment, or ran on GPUs of which
            nobody said what they were (`instance`).
    """
    run, past, measured = measure_run(folder, model_config, teacher_config, critic_config)
    work = adopt(work, measured, job, past)
    if past.device == "cpu":
        return work, replace(rates, source=f"{rates.source} ({folder.name} ran on a CPU and has no rates to give)"), []
    if instance is None:
        raise PlanError(f"{folder} ran on GPUs; say on which instance with --calibrate-instance NAME")
    found = Measured(seconds_of(run), past, within(measured, past), instance, f"{folder.name} on {instance.name}")
    return work, calibrate(found, otherwise=rates), _memory_remarks(run, past, instance)


def _memory_remarks(run: Run, past: Job, instance: Instance) -> list[str]:
    used = run.series(_MEMORY)[1]
    if not used:
        return []
    planned = memory.estimate(past, instance.gpu_bytes)
    trainer = max(
        planned.total(phase) - _not_the_trainers(planned, phase) for phase in memory.TRAINING if phase in planned.phases
    )
    return [
        f"{run.name}: its trainer held at most {max(used):.1f} GiB of tensors on a GPU; the arithmetic says "
        f"{trainer / GIB:.1f}"
    ]


def _not_the_trainers(planned: memory.Memory, phase: str) -> float:
    """Bytes of a phase that torch's allocator in the training process does not count."""
    return sum(planned.phases[phase].get(part, 0.0) for part in _NOT_TENSORS)


def measure_run(
    folder: Path, model_config: Path | None, teacher_config: Path | None = None, critic_config: Path | None = None
) -> tuple[Run, Job, Workload]:
    """A finished run with its own configuration and its mean workload; ``config.json`` files of its models, if needed.

    Raises:
        PlanError: the run left no manifest or no timed step.
    """
    run = load_run(folder, folder.name)
    if run.manifest is None:
        raise PlanError(f"{folder} has no manifest.json, so its settings are unknown; name a run's own folder")
    config = run.manifest["config"]
    model = models.load(config["actor_rollout_ref"]["model"]["path"], model_config)
    job = job_from_config(config, model, teacher=teacher_config, critic=critic_config)
    found = {
        "turns": _typical(run, "episode/turns"),
        "prompt": _typical(run, "prompt_length/mean"),
        "answer": _typical(run, "response_length/mean"),
    }
    if missing := [name for name, value in found.items() if not value]:
        raise PlanError(f"{folder} logged no {', '.join(missing)}: it has not finished a training step")
    teacher = _typical(run, "sdar/teacher_prompt_tokens/mean")
    work = Workload(
        **found,
        feedback=0.0,
        skills=max(0.0, teacher - found["prompt"]) if teacher else 0.0,
        step_seconds=shipped("workloads").get(job.env, {}).get("step_seconds", 0.01),
        source=f"measured in {folder.name}",
    )
    return run, job, work


def seconds_of(run: Run) -> dict[str, float]:
    """Median seconds of each phase over the steps after the first."""
    seconds = {phase: _typical(run, f"timing_s/{timer}") for timer, phase in TIMERS.items()}
    step = _typical(run, "timing_s/step")
    seconds["other"] = max(0.0, step - sum(seconds.values())) if step else 0.0
    return {name: value for name, value in seconds.items() if value}


def adopt(work: Workload, measured: Workload, job: Job, past: Job) -> Workload:
    """The plan's workload with what a run measured; lengths in tokens only where the vocabulary is the same."""
    if past.env != job.env:
        raise PlanError(f"{measured.source}: it played {past.env}, the plan is for {job.env}; calibrate with its own")
    if past.model.vocab != job.model.vocab or past.rows != job.rows:
        source = f"turns {measured.source} (another vocabulary or kind of rows); else {work.source}"
        return within(replace(work, turns=measured.turns, source=source), job)
    skills = measured.skills or work.skills
    return within(replace(measured, skills=skills, feedback=work.feedback), job)


def _typical(run: Run, name: str) -> float:
    values = run.series(name)[1]
    return median(values[_WARM_UP:] or values) if values else 0.0
