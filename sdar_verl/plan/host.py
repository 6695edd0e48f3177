"""What a run needs of its machines beside GPU memory: main memory, processes, disk, and how large a checkpoint is."""

from __future__ import annotations

from dataclasses import dataclass

from sdar_verl.plan.engine import Engine
from sdar_verl.plan.job import Job
from sdar_verl.plan.units import GB, GIB

TRAINER_PROCESS = 6 * GIB  # Python, CUDA and NCCL libraries, staging buffers: one for each GPU
ENGINE_PROCESS = 5 * GIB  # likewise of a rollout engine's worker
RAY = 8 * GIB  # head, object store in use, TransferQueue's actors
AGENT_WORKER = 1 * GIB  # an agent-loop worker with tokenizer and skills
# one process of environments: with its first one, and each further one
ENVIRONMENTS = {"alfworld": (97e6, 7e6)}
OTHER_ENVIRONMENT = (500e6, 20e6)
INSTALLATION = 15 * GB
TOKEN_FIELDS = 10  # numbers of 8 bytes that travel for each token of a step


@dataclass(frozen=True)
class Host:
    """Bytes for each machine, apart from `checkpoint` and `export`, which are the whole model's.

    Attributes:
        memory: part to bytes of main memory.
        loading: main memory while the weights are loaded: the first rank of a machine holds them whole.
        processes: busy processes.
        disk: part to bytes.
        checkpoint: what one checkpoint takes (weights and optimizer in the kept type, the critic's too).
        kept: how many of the policy's lie on the disk at once.
        export: the weights alone in two bytes a number, as a Hugging Face folder.
        slots: episodes that the environment processes can play at once, on all machines.
    """

    memory: dict[str, float]
    loading: float
    processes: int
    disk: dict[str, float]
    checkpoint: float
    kept: int
    export: float
    slots: int

    @property
    def memory_peak(self) -> float:
        """Main memory of a machine at its fullest."""
        return max(sum(self.memory.values()), self.memory["processes"] + self.loading)


def estimate(job: Job, tokens_per_step: float) -> Host:
    """Needs of one machine of the run; `tokens_per_step` are those that travel through TransferQueue."""
    gpus = job.gpus // job.nodes
    first, further = ENVIRONMENTS.get(job.env, OTHER_ENVIRONMENT)
    processes = job.env_processes / job.nodes
    environments = processes * (first + further * (job.envs_per_process - 1))
    reference = job.ref_bytes * job.ref_model.params if job.reference else 0
    critic, away = (0.0, 0.0) if job.critic is None else (_checkpoint(job.critic), _offloaded(job.critic))
    fields = TOKEN_FIELDS + (job.critic is not None)
    memory = {
        "processes": gpus * (TRAINER_PROCESS + ENGINE_PROCESS) + RAY + job.agent_workers / job.nodes * AGENT_WORKER,
        "environments": environments,
        "reference": reference / job.nodes,
        "offloaded training state": (_offloaded(job) + away) / job.nodes,
        "teacher servers": job.server_gpus * ENGINE_PROCESS,
        # adapters are handed over alone, so the sleeping engine keeps the base weights on the host
        "sleeping rollout weights": job.rollout_bytes * job.model.params * gpus / job.tp if _parks(job) else 0,
        "rows of a step": tokens_per_step * fields * 8 / job.nodes,
    }
    checkpoint = _checkpoint(job)
    teacher = job.ref_bytes * job.model.params if job.moving_average else 0
    kept = _kept(job, job.keep) * (checkpoint + teacher) + _kept(job, job.critic_keep) * critic
    disk = {
        "installation": INSTALLATION,
        "model": 2 * job.model.params,
        "teacher": 2 * job.scorer.params if job.teacher_model is not None and job.teacher != "remote" else 0,
        "checkpoints": kept / job.nodes,
    }
    return Host(
        memory={name: size for name, size in memory.items() if size},
        loading=max(away + _whole(job) + reference, _whole(job.critic)),
        processes=2 * gpus + job.server_gpus + round(processes) + round(job.agent_workers / job.nodes) + 2,
        disk={name: size for name, size in disk.items() if size or name != "teacher"},
        checkpoint=checkpoint + teacher + critic,
        kept=_kept(job, job.keep),
        export=2 * job.model.params,
        slots=job.env_processes * job.envs_per_process,
    )


def _whole(engine: Engine | None) -> float:
    """Weights as they are loaded, before they are shared out."""
    return 0.0 if engine is None else engine.weight_bytes * engine.kept


def _checkpoint(engine: Engine) -> float:
    """Weights, AdamW's moments and a Hugging Face model, as far as they are saved."""
    sizes = {
        "model": engine.trainable if engine.saves_adapters_alone else engine.kept,
        "optimizer": 2 * engine.trainable,
        "hf_model": engine.model.params,
    }
    return engine.weight_bytes * sum(size for part, size in sizes.items() if part in engine.saves)


def _kept(job: Job, keep: int) -> int:
    """Checkpoints on the disk at once: one more than are kept, at most all that the run writes (with 0 all)."""
    return min(keep + 1, job.written) if keep else job.written


def _offloaded(engine: Engine) -> float:
    """Training state that lies in main memory, of all GPUs together."""
    if engine.cpu_offload:
        return engine.weight_bytes * (engine.kept + 3 * engine.trainable)
    weights = engine.weight_bytes * (engine.kept + engine.trainable) * engine.param_offload
    return weights + 2 * engine.weight_bytes * engine.trainable * engine.optimizer_offload


def _parks(job: Job) -> bool:
    return bool(job.lora_rank) and job.sleeps
