"""Two comparisons that decide a budget: methods over environments, and where the teacher's scores are computed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sdar_verl.plan import host as hosts
from sdar_verl.plan import servers, timing
from sdar_verl.plan.catalogue import Catalogue, Instance
from sdar_verl.plan.job import Job
from sdar_verl.plan.timing import PREFILL_SHARE, Rates, Times
from sdar_verl.plan.units import GIB, shipped
from sdar_verl.plan.workload import Workload, assumed

METHODS = (("GRPO", None), ("GRPO+OPSD", "actor"), ("SDAR", "actor"))
WITH_CRITIC = {"GRPO": "PPO", "GRPO+OPSD": "PPO+OPSD", "SDAR": "SDAR on PPO"}
# enough memory for the smallest of models, one GPU: what one would rent for a teacher alone
TEACHER_NODES = ("g6.xlarge", "g6e.xlarge", "g7e.2xlarge", "p5.4xlarge")
_AS_REFERENCE = {"kl": True, "reference": True}
_NO_REFERENCE = {"kl": False, "reference": False}
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
    """GRPO, GRPO+OPSD and SDAR on this instance; the other environments with their published settings.

    With a critic all of them have one. The teacher has the policy's weights, whatever the plan's own has.
    """
    published, rows = shipped("workloads")["published"], []
    for name, teacher in METHODS:
        own = job.with_(teacher=teacher, teacher_model=None, servers=0, distribution=False, moving_average=False)
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
                method=name if job.critic is None else WITH_CRITIC[name],
                step=times.step,
                hours=times.hours,
                usd=None if rate is None else rate * job.nodes * times.hours,
                hours_all=hours_all,
                usd_all=None if rate is None else rate * job.nodes * hours_all,
            )
        )
    return rows


def teachers(job: Job, work: Workload, instance: Instance, rates: Rates, catalogue: Catalogue) -> list[TeacherCost]:
    """Where this teacher could score; empty without one.

    The policy's weights: in the trainer's engine (`actor`) or the rollout's. Another model: in verl's reference. Either
    at the plan's own servers, where it has some, or on a spot node with one GPU.
    """
    if job.teacher is None:
        return []
    here = "actor" if job.teacher_model is None else "ref"
    base_job = job.with_(teacher=here, servers=0, distribution=False, **({} if here == "actor" else _AS_REFERENCE))
    base = _times(base_job, work, instance, rates)
    # a teacher elsewhere takes no reference model's place; whether the run has one beside it is the run's own setting
    lent = _NO_REFERENCE if job.teacher == "ref" and job.teacher_model is not None else {}
    alone = job.with_(teacher=None, teacher_model=None, servers=0, distribution=False, **lent)
    without = _times(alone, work, instance, rates)
    rate = instance.usd("on_demand")
    train = None if rate is None else rate * job.nodes
    if here == "ref":
        note = f"{job.scorer.name} in main memory; scored once more as the reference"
        rows = [_row("ref", instance.name, base, base.step, train, 0.0, note)]
    else:
        rows = [_row("actor", instance.name, base, base.step, train, 0.0, "no extra copy: the policy's own weights")]
        prefill = timing.prefill_seconds(base_job, work, instance)
        tail = timing.tail_seconds(job, work, without.phases["generate"])
        rows.append(
            _row("rollout", instance.name, base, without.step + max(0.0, prefill - tail), train, 0.0,
                 f"{prefill:.0f} s of prefill, in a tail of about {tail:.0f} s")
        )  # fmt: skip
    if job.servers:
        scoring, more = timing.served_seconds(job, work, instance, rates), servers.machines(job, instance) - job.nodes
        where = f"{instance.name}, {job.server_gpus} more GPU{'s' * (job.server_gpus > 1)}"
        note = f"{scoring:.0f} s to score, after all episodes have ended"
        rows.append(_row("server", where, base, without.step + scoring, train, (rate or 0.0) * more, note))
    flops = timing.teacher_flops(job, work)
    scorer, longest = job.scorer, job.teacher_prompt + job.response
    need = 2 * scorer.params + 2 * GIB + scorer.kv_bytes_per_token() * longest
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
