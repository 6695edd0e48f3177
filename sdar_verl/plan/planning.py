"""One plan: everything that the arithmetic says about a run on an instance, and about the same run on the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from sdar_verl.plan import comparison, servers, timing, verdict
from sdar_verl.plan import cost as costs
from sdar_verl.plan import host as hosts
from sdar_verl.plan import memory as memories
from sdar_verl.plan.catalogue import Catalogue, Instance
from sdar_verl.plan.comparison import MethodCost, TeacherCost
from sdar_verl.plan.cost import Cost, Spot
from sdar_verl.plan.host import Host
from sdar_verl.plan.job import Job
from sdar_verl.plan.memory import Memory
from sdar_verl.plan.timing import Rates, Times
from sdar_verl.plan.units import PlanError
from sdar_verl.plan.verdict import Change, Fit
from sdar_verl.plan.workload import Workload

UPLOAD_RATE = 1e9  # bytes a second into S3, or half of the network where that is less


@dataclass(frozen=True)
class Option:
    """The run on one instance; with `overrides` where it needs them to fit, costs None where nothing helps."""

    instance: Instance
    fit: Fit
    peak: float
    overrides: tuple[str, ...] | None
    times: Times | None
    spot: Spot | None
    cost: Cost | None


@dataclass(frozen=True)
class Plan:
    """Everything that is shown; see the classes of its parts."""

    title: str
    job: Job
    instance: Instance
    machines: int
    memory: Memory
    fit: Fit
    changes: list[Change]
    solution: tuple[str, ...] | None
    spare: Change | None
    host: Host
    upload: float
    work: Workload
    rates: Rates
    times: Times
    spot: Spot
    cost: Cost
    options: list[Option]
    methods: list[MethodCost]
    teachers: list[TeacherCost]
    remarks: list[str]
    warnings: list[str]
    today: date

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values: bytes, seconds, hours and USD under names that say so."""
        memory = {
            name: {"parts": parts, "total": self.memory.total(name)} for name, parts in self.memory.phases.items()
        }
        return {
            "title": self.title,
            "as_of": self.today.isoformat(),
            "model": {"name": self.job.model.name, "parameters": self.job.model.params, "trained": self.job.trainable},
            "teacher": {
                "placement": self.job.teacher,
                "name": self.job.scorer.name if self.job.teacher else None,
                "parameters": self.job.scorer.params if self.job.teacher else 0,
                "server_gpus": self.job.server_gpus,
            },
            "critic_parameters": self.job.critic.model.params if self.job.critic else 0,
            "instance": _instance(self.instance),
            "machines": self.machines,
            "memory_bytes": memory,
            "peak_bytes": self.memory.peak,
            "kv_cache_bytes": {"room": self.memory.kv_room, "full_episodes": self.memory.kv_need},
            "fit": asdict(self.fit),
            "changes": [_change(change) for change in self.changes],
            "solution": None if self.solution is None else list(self.solution),
            "spare": None if self.spare is None else _change(self.spare),
            "host": asdict(self.host) | {"memory_peak": self.host.memory_peak, "upload_seconds": self.upload},
            "workload": asdict(self.work),
            "rates": asdict(self.rates),
            "step_seconds": self.times.phases | {"total": self.times.step},
            "run_hours": self.times.hours,
            "spot": {k: v if math.isfinite(v) else None for k, v in asdict(self.spot).items()},
            "usd": asdict(self.cost),
            "options": [_option(option) for option in self.options],
            "methods": [asdict(row) for row in self.methods],
            "teachers": [asdict(row) for row in self.teachers],
            "remarks": self.remarks,
            "warnings": self.warnings,
        }


def make_plan(
    job: Job,
    *,
    title: str,
    catalogue: Catalogue,
    instance: str | None,
    work: Workload,
    rates: Rates,
    mtbf_hours: float,
    restart_seconds: float,
    today: date,
    remarks: Sequence[str] = (),
) -> Plan:
    """Plan a run on `instance`, or on the cheapest (on demand) that it fits on as it is.

    Raises:
        PlanError: no instance of the catalogue has as many GPUs as the run wants in one machine.
    """
    needed, sizes = job.gpus // job.nodes, _sizes(job, catalogue)

    def option(candidate: Instance) -> Option:
        return _plan_option(job, candidate, work, rates, catalogue, mtbf_hours, restart_seconds)

    options = [option(found) for found in catalogue.instances.values() if found.gpus in sizes]
    options.sort(key=lambda o: (o.fit.word == "no", o.overrides is None, _usd(o)))
    if instance is None and not options:
        known = sorted({found.gpus for found in catalogue.instances.values()})
        raise PlanError(f"no instance has {needed} GPUs; known sizes: {known}. Set trainer.n_gpus_per_node or nnodes")
    place = options[0].instance if instance is None else catalogue.get(instance)
    memory, host = memories.estimate(job, place.gpu_bytes), hosts.estimate(job, work.tokens(job))
    times = timing.estimate(job, work, place, rates, host)
    upload = _upload(job, host, place)
    spot = costs.on_spot(times, mtbf_hours, restart_seconds, upload)
    changes = verdict.changes(job, place, work.tokens(job))
    solution = verdict.solve(job, place, work.tokens(job)) if changes else None
    machines = servers.machines(job, place)
    shown = [o.instance.name for o in options if o.cost is not None]
    return Plan(
        title=title,
        job=job,
        instance=place,
        machines=machines,
        memory=memory,
        fit=verdict.judge(job, place, memory, host),
        changes=changes,
        solution=None if solution is None else solution[1],
        spare=verdict.spare(job, place),
        host=host,
        upload=upload,
        work=work,
        rates=rates,
        times=times,
        spot=spot,
        cost=costs.price(place, machines, times, spot, *_in_s3(job, host), catalogue.s3_usd_per_gb_month),
        options=options,
        methods=comparison.methods(job, work, place, rates),
        teachers=comparison.teachers(job, work, place, rates, catalogue),
        remarks=list(remarks),
        warnings=catalogue.warnings(sorted({place.name, *shown}), today),
        today=today,
    )


def _plan_option(
    job: Job, place: Instance, work: Workload, rates: Rates, catalogue: Catalogue, mtbf: float, restart: float
) -> Option:
    memory, host = memories.estimate(job, place.gpu_bytes), hosts.estimate(job, work.tokens(job))
    fit = verdict.judge(job, place, memory, host)
    solution = (job, ()) if fit.ok else verdict.solve(job, place, work.tokens(job))
    if solution is None:
        return Option(place, fit, memory.peak, None, None, None, None)
    changed, overrides = solution
    host = hosts.estimate(changed, work.tokens(changed))
    times = timing.estimate(changed, work, place, rates, host)
    spot = costs.on_spot(times, mtbf, restart, _upload(changed, host, place))
    machines = servers.machines(changed, place)
    cost = costs.price(place, machines, times, spot, *_in_s3(changed, host), catalogue.s3_usd_per_gb_month)
    return Option(place, fit, memories.estimate(changed, place.gpu_bytes).peak, overrides, times, spot, cost)


def _sizes(job: Job, catalogue: Catalogue) -> set[int]:
    """GPUs of machines that a plan looks at: as many as train, or the fewest that hold the teacher's servers too."""
    training = job.gpus // job.nodes
    both = training + math.ceil(job.servers / job.nodes) * job.server_tp
    larger = [found.gpus for found in catalogue.instances.values() if found.gpus >= both]
    return {training, min(larger)} if job.servers and larger else {training}


def _upload(job: Job, host: Host, place: Instance) -> float:
    """Seconds that a checkpoint takes into S3; each machine sends its part."""
    return host.checkpoint / job.nodes / min(UPLOAD_RATE, place.network_gbps / 16 * 1e9)


def _in_s3(job: Job, host: Host) -> tuple[float, float]:
    """Bytes of the checkpoints that stay, and of those that were replaced."""
    written = job.written or job.stored
    return min(job.stored, written) * host.checkpoint, max(0, written - job.stored) * host.checkpoint


def _usd(option: Option) -> float:
    return float("inf") if option.cost is None or option.cost.on_demand is None else option.cost.on_demand


def _instance(instance: Instance) -> dict[str, Any]:
    plain = asdict(instance)
    for price in plain["prices"].values():
        price["as_of"] = price["as_of"].isoformat()
    return plain


def _change(change: Change) -> dict[str, Any]:
    return {
        "overrides": list(change.overrides),
        "price": change.price,
        "fits": change.fits,
        "peak_bytes": change.memory.peak,
    }


def _option(option: Option) -> dict[str, Any]:
    return {
        "instance": option.instance.name,
        "fit": option.fit.word,
        "overrides": None if option.overrides is None else list(option.overrides),
        "peak_bytes": option.peak,
        "hours": None if option.times is None else option.times.hours,
        "usd": None if option.cost is None else asdict(option.cost),
    }
