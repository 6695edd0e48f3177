"""Whether a run fits on an instance, what stands in its way, and which single changes would help."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sdar_verl.plan import host as hosts
from sdar_verl.plan import memory as memories
from sdar_verl.plan.catalogue import Instance
from sdar_verl.plan.host import Host
from sdar_verl.plan.job import Job
from sdar_verl.plan.memory import Memory
from sdar_verl.plan.units import GB, GIB

TIGHT = 0.95  # of a GPU: above it, a plan is called tight
ROOMY = 0.70  # below it, larger micro-batches are suggested
_FLOOR = 1024


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
    elif gpus < instance.gpus:
        warnings.append(f"{instance.gpus - gpus} of {instance.gpus} GPUs stay idle; set trainer.n_gpus_per_node")
    share = memory.peak / instance.gpu_bytes
    for phase in memory.phases:
        if memory.total(phase) > instance.gpu_bytes:
            over = (memory.total(phase) - instance.gpu_bytes) / GIB
            problems.append(f"the {phase} phase is {over:.1f} GiB over the GPU's {instance.gpu_bytes / GIB:.1f}")
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
    trained = sum(resting.get(part, 0.0) for part in ("actor weights",)) + memories.TRAINER_CONTEXT
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


def changes(job: Job, instance: Instance, tokens_per_step: float) -> list[Change]:
    """Single changes that lower the fullest phase, those that make the run fit first; empty if it fits already."""

    def planned(changed: Job) -> tuple[Memory, Fit]:
        memory = memories.estimate(changed, instance.gpu_bytes)
        return memory, judge(changed, instance, memory, hosts.estimate(changed, tokens_per_step))

    now, fit = planned(job)
    if fit.ok:
        return []
    found = []
    for step, (overrides, price, apply) in enumerate(_candidates(job, instance)):
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
    while memories.estimate(_with_tokens(job, tokens * 2), instance.gpu_bytes).peak <= 0.9 * instance.gpu_bytes:
        tokens *= 2
        if tokens >= 1 << 17:
            break
    if tokens == job.update_tokens:
        return None
    larger = _with_tokens(job, tokens)
    return Change((_tokens_override(tokens),), "fewer, larger micro-batches", larger,
                  memories.estimate(larger, instance.gpu_bytes), True)  # fmt: skip


def _with_tokens(job: Job, tokens: int) -> Job:
    longest = max(job.row, job.teacher_row)
    return job.with_(update_tokens=max(tokens, job.row), score_tokens=max(tokens, longest))


def _tokens_override(tokens: int) -> str:
    return f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu={tokens}"


Candidate = tuple[tuple[str, ...], str, Callable[[Job], Job]]


def _candidates(job: Job, instance: Instance) -> Iterator[Candidate]:
    """What may be changed, the least costly first."""
    actor = "actor_rollout_ref.actor"

    def put(**values: Any) -> Callable[[Job], Job]:
        return lambda current: current.with_(**values)

    least = math.ceil(max(job.row, job.teacher_row) / _FLOOR) * _FLOOR
    tokens = 1 << (max(job.update_tokens, job.score_tokens) - 1).bit_length() >> 1
    while tokens >= least:
        overrides = (_tokens_override(tokens),) if job.dynamic else (
            f"{actor}.use_dynamic_bsz=true", _tokens_override(tokens))  # fmt: skip
        yield overrides, "more, smaller micro-batches; the gradient stays the same", (
            lambda current, t=tokens: _with_tokens(current, t).with_(dynamic=True))  # fmt: skip
        tokens //= 2
    if job.update_tokens > least or job.score_tokens > least:
        yield (_tokens_override(least),), "the smallest micro-batch that holds the longest row", (
            lambda current: _with_tokens(current, least).with_(dynamic=True))  # fmt: skip
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
    if not job.fused and not job.distribution:
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
    if not job.lora_rank:
        yield ("actor_rollout_ref.model.lora_rank=32", f"{actor}.fsdp_config.model_dtype=bf16"), (
            "adapters instead of all weights: another model is trained"), put(
            lora_rank=32, lora_targets="all-linear", weight_bytes=2, reference=False)  # fmt: skip
