"""Two comparisons that decide a budget: methods over environments, and where the teacher's scores are computed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sdar_verl.plan import host as hosts
from sdar_verl.plan import timing
from sdar_verl.plan.catalogue import Catalogue, Instance
from sdar_verl.plan.job import Job
from sdar_verl.plan.timing import PREFILL_SHARE, Rates, Times
from sdar_verl.plan.units import GIB, shipped
from sdar_verl.plan.workload import Workload, assumed

METHODS = (("GRPO", None), ("GRPO+OPSD", "actor"), ("SDAR", "actor"))
# enough memory for the smallest of models, one GPU: what one would rent for a teacher alone
TEACHER_NODES = ("g6.xlarge", "g6e.xlarge", "g7e.2xlarge", "p5.4xlarge")
_ENGINE_SHARE = 0.9  # of a teacher's GPU that its engine may take


@dataclass(frozen=True)
class MethodCost:
    """Hours and USD (on demand) of a method: on the plan's environment, and on the three published ones together."""

    method: str
    step: float
    hours: float
    usd: float | None
    hours_all: float
    usd_all: float | None


@dataclass(frozen=True)
class TeacherCost:
    """A placement of the teacher: seconds of a step, hours and USD of the run with training on demand."""

    placement: str
    where: str
    step: float
    hours: float
    usd: float | None
    note: str


def methods(job: Job, work: Workload, instance: Instance, rates: Rates) -> list[MethodCost]:
    """GRPO, GRPO+OPSD and SDAR on this instance; the other environments with their published settings."""
    published, rows = shipped("workloads")["published"], []
    for name, teacher in METHODS:
        own = job.with_(teacher=teacher, distribution=False, moving_average=False)
        times = _times(own, work, instance, rates)
        hours_all = 0.0
        for env, settings in published.items():
            if env == job.env:
                hours_all += times.hours
                continue
            other = own.with_(
                env=env, skills_store="-", rows="step", test_every=settings["test_every"], panel=settings["panel"],
                **{key: settings[key] for key in ("tasks", "group", "prompt", "response", "max_turns", "steps")},
                teacher_prompt=max(own.teacher_prompt, settings["prompt"] + 2048),
            )  # fmt: skip
            hours_all += _times(other, assumed(other), instance, rates).hours
        rate = instance.usd("on_demand")
        rows.append(
            MethodCost(
                method=name,
                step=times.step,
                hours=times.hours,
                usd=None if rate is None else rate * job.nodes * times.hours,
                hours_all=hours_all,
                usd_all=None if rate is None else rate * job.nodes * hours_all,
            )
        )
    return rows


def teachers(job: Job, work: Workload, instance: Instance, rates: Rates, catalogue: Catalogue) -> list[TeacherCost]:
    """On the training node (`actor`), inside the rollout engine, or on a spot node with one GPU; empty without one."""
    if job.teacher is None:
        return []
    here = job.with_(teacher="actor", distribution=False)
    base = _times(here, work, instance, rates)
    without = _times(here.with_(teacher=None), work, instance, rates)
    rate = instance.usd("on_demand")
    train = None if rate is None else rate * job.nodes
    rows = [_row("actor", instance.name, base, base.step, train, 0.0, "no extra copy: the policy's own weights")]
    flops = timing.forward_flops(here, work.teacher_tokens(here))
    prefill = timing.prefill_seconds(here, work, instance)
    tail = timing.tail_seconds(job, work, without.phases["generate"])
    rows.append(
        _row("rollout", instance.name, base, without.step + max(0.0, prefill - tail), train, 0.0,
             f"{prefill:.0f} s of prefill, in a tail of about {tail:.0f} s")
    )  # fmt: skip
    need = 2 * job.model.params + 2 * GIB + job.model.kv_bytes_per_token() * (job.teacher_prompt + job.response)
    for name in TEACHER_NODES:
        node = catalogue.get(name)
        usd = node.usd("spot") or node.usd("on_demand")
        if need > _ENGINE_SHARE * node.gpu_bytes or usd is None:
            continue
        scoring = flops / (node.gpus * node.bf16_flops * PREFILL_SHARE)
        step = without.step + scoring
        market = "spot" if node.usd("spot") else "on demand"
        rows.append(
            _row("remote", f"{name} ({market})", base, step, train, usd,
                 f"{scoring:.0f} s to score, after all episodes have ended")
        )  # fmt: skip
    return rows


def _row(
    placement: str, where: str, base: Times, step: float, train: float | None, extra: float, note: str
) -> TeacherCost:
    hours = base.hours + base.steps * (step - base.step) / 3600
    usd = None if train is None else (train + extra) * hours
    return TeacherCost(placement, where, step, hours, usd, note)


def _times(job: Job, work: Workload, instance: Instance, rates: Rates) -> Times:
    skills = work if job.teacher else replace(work, skills=0.0)
    return timing.estimate(job, skills, instance, rates, hosts.estimate(job, work.tokens(job)))
