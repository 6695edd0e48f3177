"""Memory of one GPU, part by part and phase by phase, in bytes. Formulas and where they come from: docs/planner.md.

A phase's peak is the sum of its parts. They are not all there at the same moment, so it is an upper estimate of the
tensors; what it cannot know (contexts, communication buffers, fragmentation) is the part called reserve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sdar_verl.plan.job import Job
from sdar_verl.plan.units import GIB

PHASES = ("rollout", "hand-over", "score", "update")
PARTS = (
    "actor weights",
    "gradients",
    "optimizer",
    "reference",
    "teacher",
    "rollout weights",
    "rollout workspace",
    "KV cache",
    "activations",
    "logits",
    "gathered weights",
    "reserve",
)
TRAINER_CONTEXT = 1.5 * GIB  # CUDA context, NCCL and allocator slack of the training process
ENGINE_CONTEXT = 1.5 * GIB  # context and graphs of a sleeping rollout engine, which sleep does not give back
ENGINE_WORKSPACE = 1.5 * GIB  # graphs and the activations of a prefill, inside the engine's own share
EAGER_ENTROPY = 12  # bytes a number that entropy keeps where its kernel is not compiled: three float32 tensors
FULL_CHUNK = 512  # rows of sdar_verl.core.distributions.CHUNK; a test holds the two together
_PREFILL_LOGIT = 10  # bytes a logit of a scored prompt: in half precision, in float32, and its log-softmax
_CHUNK_COPIES = 8  # float32 tensors of a chunk while its divergence is computed and differentiated


@dataclass(frozen=True)
class Memory:
    """Attributes:
    phases: phase to part to bytes on the fullest GPU; parts that are zero are left out.
    kv_room, kv_need: bytes of KV cache that one GPU has, and that its share of all episodes at full length would take.
    sequences: episodes that one rollout engine plays at once.
    """

    phases: dict[str, dict[str, float]]
    kv_room: float
    kv_need: float
    kv_longest: float
    sequences: int

    def total(self, phase: str) -> float:
        """Bytes of a phase."""
        return sum(self.phases[phase].values())

    @property
    def peak_phase(self) -> str:
        """The phase that takes most."""
        return max(self.phases, key=self.total)

    @property
    def peak(self) -> float:
        """Bytes of the fullest phase."""
        return self.total(self.peak_phase)


def estimate(job: Job, gpu_bytes: float) -> Memory:
    """Memory of a run on GPUs of `gpu_bytes` each."""
    state = _resident(job)
    weights = job.rollout_bytes * job.model.params / job.tp
    share = job.utilization * gpu_bytes
    kv_room = share - weights - ENGINE_WORKSPACE
    kv = job.model.kv_bytes_per_token(job.rollout_bytes) / min(job.tp, job.model.kv_heads)
    sequences = min(job.max_num_seqs, math.ceil(job.episodes / job.replicas))
    context = max(job.row, job.teacher_row if job.teacher == "rollout" else 0)
    engine = {"rollout weights": weights, "rollout workspace": ENGINE_WORKSPACE}
    awake = engine | {"KV cache": max(0.0, kv_room)}
    if job.teacher == "rollout":
        awake["logits"] = _PREFILL_LOGIT * job.model.vocab * job.teacher_row
    asleep = {"reserve": TRAINER_CONTEXT + ENGINE_CONTEXT} if job.sleeps else awake | {"reserve": TRAINER_CONTEXT}
    between = {} if job.cpu_offload else {
        "actor weights": 0 if job.param_offload else state["actor weights"],
        "optimizer": 0 if job.optimizer_offload else state["optimizer"],
    }  # fmt: skip
    loaded = {} if job.cpu_offload else {"actor weights": state["actor weights"]}
    scoring = loaded | ({} if job.cpu_offload or job.optimizer_offload else {"optimizer": state["optimizer"]})
    phases = {
        "rollout": between | awake | {"reserve": TRAINER_CONTEXT},
        "hand-over": scoring | engine | {"gathered weights": _handed_over(job), "reserve": TRAINER_CONTEXT},
        "score": scoring | asleep | _forward(job),
        "update": ({} if job.cpu_offload else state) | asleep | _update(job),
    }
    return Memory(
        phases={name: {part: parts[part] for part in PARTS if parts.get(part)} for name, parts in phases.items()},
        kv_room=kv_room,
        kv_need=sequences * context * kv,
        kv_longest=job.max_model_len * kv,
        sequences=sequences,
    )


def _resident(job: Job) -> dict[str, float]:
    """Sharded training state: AdamW keeps two moments in the weights' own type, gradients have it too."""
    one = job.weight_bytes / job.shards
    return {
        "actor weights": one * job.kept,
        "gradients": one * job.trainable,
        "optimizer": 2 * one * job.trainable,
    }


def _handed_over(job: Job) -> float:
    """One whole tensor at a time in the kept type, and the bucket that carries it to the engine."""
    largest = max(job.model.embedding, job.model.largest_block / 3)
    return job.weight_bytes * largest + 2 * job.bucket


def _live_block(job: Job, tokens: int) -> float:
    """Tensors of one transformer block with flash attention: 16·h + 6·f bytes a token at two bytes a number."""
    return tokens * (8 * job.model.hidden + 3 * job.model.live_ffn) * job.compute_bytes


def _activations(job: Job, tokens: int) -> float:
    """Kept for the backward pass: every block's input, or without checkpointing every block's tensors."""
    if not job.checkpointing:
        return job.model.layers * _live_block(job, tokens)
    inputs = 0 if job.activation_offload else job.model.layers * job.model.hidden * tokens * job.compute_bytes
    return inputs + _live_block(job, tokens)


def _forward(job: Job) -> dict[str, float]:
    """Scoring without gradient: old log-probabilities (with entropy), reference, teacher."""
    size = job.model.vocab * job.score_tokens
    per_number = job.compute_bytes * (1 if job.unit_temperature else 2) + (0 if job.compiled else 8)
    return {
        "activations": _live_block(job, job.score_tokens) + 2 * job.compute_bytes * job.model.hidden * job.score_tokens,
        "logits": 0 if job.fused else size * per_number,
        "gathered weights": _gathered(job),
    }


def _gathered(job: Job) -> float:
    """Whole weights in the computing type: this block, the next and the output embedding; all where they stay."""
    if not job.reshards:
        return job.compute_bytes * job.model.params
    return job.compute_bytes * (2 * job.model.largest_block + job.model.embedding)


def _update(job: Job) -> dict[str, float]:
    block, head = job.compute_bytes * job.model.largest_block, job.compute_bytes * job.model.embedding
    gathered = _gathered(job)
    if not job.lora_rank:  # unsharded gradients, and a block of them in the type in which they are exchanged
        gathered += block + head + job.reduce_bytes * job.model.largest_block
    parts = {
        "activations": _activations(job, job.update_tokens),
        "logits": 0 if job.fused else job.model.vocab * job.update_tokens * _bytes_per_logit(job),
        "gathered weights": gathered,
    }
    if job.distribution:
        parts["teacher"] = _distributions(job)
    return parts


def _bytes_per_logit(job: Job) -> int:
    """Bytes of an update for each token and word.

    The logits in the computing type; flash attention's cross entropy writes its gradient over them, unless entropy
    needs them too. Then each of the two has a gradient of its own, and without a compiled kernel entropy keeps the
    softmax and works on two more float32 tensors.
    """
    one = job.compute_bytes
    scaled = 0 if job.unit_temperature else one
    if not job.entropy:
        return one + scaled
    return 2 * one + scaled + (one if job.compiled else EAGER_ENTROPY)


def _distributions(job: Job) -> float:
    """The teacher's pass in the update: its logits, both sides at the sampled positions, a gradient, a chunk."""
    rows = max(1, job.update_tokens // job.row)
    sampled = rows * job.response
    teacher_tokens = max(job.teacher_row, rows * job.teacher_row)
    one = job.compute_bytes * job.model.vocab
    chunk = _CHUNK_COPIES * 4 * job.model.vocab * min(FULL_CHUNK, sampled)
    return one * teacher_tokens + 3 * one * sampled + chunk + _live_block(job, teacher_tokens)
