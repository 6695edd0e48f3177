"""Whether a run fits on an instance, what stands in its way, and which single changes would help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdar_verl.plan import host as hosts
from sdar_verl.plan import memory as memories
from sdar_verl.plan import servers
from sdar_verl.plan.candidates import candidates, tokens_override, with_tokens
from sdar_verl.plan.catalogue import Instance
from sdar_verl.plan.host import Host
from sdar_verl.plan.job import Job
from sdar_verl.plan.memory import Memory
from sdar_verl.plan.units import GB, GIB

TIGHT = 0.95  # of a GPU: above it, a plan is called tight
ROOMY = 0.70  # below it, larger micro-batches are suggested


@dataclass(frozen=True)
class Fit:
    """Attributes:
    word: ``fits``, ``tight`` or ``no``.
    problems: what cannot work.
    warnings: what works, but not well.
    """

    word: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the run would start and stay."""
        return self.word != "no"


@dataclass(frozen=True)
class Change:
    """One thing to change: Hydra overrides, what it costs, and the memory with it."""

    overrides: tuple[str, ...]
    price: str
    job: Job
    memory: Memory
    fits: bool


def judge(job: Job, instance: Instance, memory: Memory, host: Host) -> Fit:
    """Compare needs with what `instance` (one of `job.nodes`) has."""
    problems, warnings, gpus = [], [], job.gpus // job.nodes
    if gpus > instance.gpus:
        problems.append(f"the run asks for {gpus} GPUs a machine, {instance.name} has {instance.gpus}")
    else:
        problems += _server_problems(job, instance)
        warnings += _idle(job, instance)
    share = memory.peak / instance.gpu_bytes
    for phase in memory.phases:
        if memory.total(phase) > instance.gpu_bytes:
            over = (memory.total(phase) - instance.gpu_bytes) / GIB
            who = "a teacher server" if phase == "server" else f"the {phase} phase"
            problems.append(f"{who} is {over:.1f} GiB over the GPU's {instance.gpu_bytes / GIB:.1f}")
    if memory.kv_room < memory.kv_longest:
        problems.append(
            f"the rollout engine has {max(0.0, memory.kv_room) / GIB:.1f} GiB for keys and values, less than one "
            f"sequence of {job.max_model_len} tokens ({memory.kv_longest / GIB:.1f} GiB): vLLM refuses to start"
        )
    elif memory.kv_room < memory.kv_need:
        warnings.append(
            f"keys and values of {memory.sequences} full episodes take {memory.kv_need / GIB:.1f} GiB a GPU, there is "
            f"room for {memory.kv_room / GIB:.1f}: some will wait or be computed again"
        )
    resting = memory.phases["rollout"]
    trained = sum(resting.get(part, 0.0) for part in ("actor weights", "critic weights")) + memories.TRAINER_CONTEXT
    if trained + job.utilization * instance.gpu_bytes > instance.gpu_bytes:
        problems.append("vLLM finds less free memory at its start than gpu_memory_utilization asks for")
    if host.memory_peak > instance.memory_gib * GIB:
        problems.append(f"main memory: {host.memory_peak / GIB:.0f} GiB of {instance.memory_gib:.0f}")
    if host.processes > instance.vcpus:
        warnings.append(f"{host.processes} busy processes on {instance.vcpus} vCPUs; lower env.pool.workers")
    disk = sum(host.disk.values())
    if disk > instance.local_nvme_gb * GB:
        warnings.append(f"disk: {disk / GB:.0f} GB, the local disks have {instance.local_nvme_gb:.0f}; add a volume")
    if instance.gpu_link == "pcie" and job.shards > 1:
        warnings.append("the GPUs are linked by PCIe: gathering shards takes time that the estimate leaves out")
    if host.slots < job.episodes:
        warnings.append(
            f"environment processes hold {host.slots} episodes of {job.episodes}: the rest wait; raise "
            "env.pool.envs_per_worker"
        )
    if memory.sequences * job.replicas < job.episodes:
        warnings.append(f"rollout.max_num_seqs={job.max_num_seqs} lets {job.episodes} episodes wait for each other")
    word = "no" if problems else "tight" if share > TIGHT else "fits"
    return Fit(word, tuple(problems), tuple(warnings))


def _server_problems(job: Job, instance: Instance) -> Iterator[str]:
    """Why the run's own teacher servers would not start."""
    if not job.servers:
        return
    if job.server_tp > instance.gpus:
        yield f"a teacher server asks for {job.server_tp} GPUs of one machine, {instance.name} has {instance.gpus}"
    room = servers.memory(job, instance.gpu_bytes, memories.ENGINE_WORKSPACE)["KV cache"]
    if room < (longest := servers.longest(job)):
        yield (
            f"a teacher server has {room / GIB:.1f} GiB for keys and values, less than one request of "
            f"{job.teacher_row + 1} tokens ({longest / GIB:.1f} GiB): vLLM refuses to start"
        )


def _idle(job: Job, instance: Instance) -> Iterator[str]:
    """What is rented and not used, and machines that servers need beside the trainer's."""
    rented = servers.machines(job, instance)
    idle = rented * instance.gpus - job.gpus - job.server_gpus
    if rented > job.nodes:
        yield (
            f"teacher servers find no free GPU beside the trainer: {rented - job.nodes} more {instance.name} is "
            f"counted, and {idle} GPUs stay idle; a smaller machine in the same Ray cluster costs less"
        )
    elif idle > 0:
        yield f"{idle} of {rented * instance.gpus} GPUs stay idle; set trainer.n_gpus_per_node"


def changes(job: Job, instance: Instance, tokens_per_step: float) -> list[Change]:
    """Single changes that lower the fullest phase, those that make the run fit first; empty if it fits already."""

    def planned(changed: Job) -> tuple[Memory, Fit]:
        memory = memories.estimate(changed, instance.gpu_bytes)
        return memory, judge(changed, instance, memory, hosts.estimate(changed, tokens_per_step))

    now, fit = planned(job)
    if fit.ok:
        return []
    found = []
    for step, (overrides, price, apply) in enumerate(candidates(job, instance)):
        changed = apply(job)
        memory, then = planned(changed)
        if then.ok or memory.peak < now.peak - 0.1 * GIB or len(then.problems) < len(fit.problems):
            found.append((not then.ok, step, Change(overrides, price, changed, memory, then.ok)))
    return [change for *_, change in sorted(found, key=lambda entry: entry[:2])]


def solve(job: Job, instance: Instance, tokens_per_step: float) -> tuple[Job, tuple[str, ...]] | None:
    """Changes after which the run fits, the first proposal each time; None if that leads nowhere.

    Returns:
        the changed job and the overrides; no overrides where it fits as it is.
    """
    made: dict[str, str] = {}
    current = job
    for _ in range(8):
        found = changes(current, instance, tokens_per_step)
        if not found:
            memory = memories.estimate(current, instance.gpu_bytes)
            fit = judge(current, instance, memory, hosts.estimate(current, tokens_per_step))
            return (current, tuple(f"{k}={v}" for k, v in made.items())) if fit.ok else None
        best = found[0]
        made |= dict(override.split("=", 1) for override in best.overrides)
        current = best.job
    return None


def spare(job: Job, instance: Instance) -> Change | None:
    """A larger micro-batch where much memory stays unused: fewer passes, the same gradient."""
    memory = memories.estimate(job, instance.gpu_bytes)
    if memory.total("update") > ROOMY * instance.gpu_bytes or not job.dynamic:
        return None
    tokens = job.update_tokens
    while memories.estimate(with_tokens(job, tokens * 2), instance.gpu_bytes).peak <= 0.9 * instance.gpu_bytes:
        tokens *= 2
        if tokens >= 1 << 17:
            break
    if tokens == job.update_tokens:
        return None
    larger = with_tokens(job, tokens)
    return Change((tokens_override(tokens),), "fewer, larger micro-batches", larger,
                  memories.estimate(larger, instance.gpu_bytes), True)  # fmt: skip
