"""Memory of one GPU, part by part and phase by phase, in bytes. Formulas and where they come from: docs/planner.md.

A phase's peak is the sum of its parts. They are not all there at the same moment, so it is an upper estimate of the
tensors; what it cannot know (contexts, communication buffers, fragmentation) is the part called reserve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sdar_verl.plan import servers
from sdar_verl.plan.engine import Engine
from sdar_verl.plan.job import Job
from sdar_verl.plan.models import ModelShape
from sdar_verl.plan.units import GIB

ALWAYS = ("rollout", "hand-over", "score", "update")
# in the order of a step after the weights' hand-over; a server's GPU is none of the trainer's
PHASES = ("rollout", "hand-over", "score", "values", "critic update", "update", "server")
TRAINING = ("score", "values", "critic update", "update")  # of the training process
PARTS = (
    "actor weights",
    "gradients",
    "optimizer",
    "critic weights",
    "critic gradients",
    "critic optimizer",
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
_CHUNK_COPIES = 8  # float32 tensors of a chunk while its divergence is computed and differentiated


@dataclass(frozen=True)
class Memory:
    """Attributes:
    phases: phase to part to bytes on the fullest GPU; parts that are zero are left out.
    kv_room, kv_need: bytes of KV cache that one GPU has, and that its share of all episodes at full length would take.
    kv_longest: bytes of the longest sequence.
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
    weights = job.rollout_bytes * job.model.params / job.tp
    share = job.utilization * gpu_bytes
    kv_room = share - weights - ENGINE_WORKSPACE
    kv = job.model.kv_bytes_per_token(job.rollout_bytes) / min(job.tp, job.model.kv_heads)
    sequences = min(job.max_num_seqs, math.ceil(job.episodes / job.replicas))
    context = max(job.row, job.teacher_row if job.teacher == "rollout" else 0)
    engine = {"rollout weights": weights, "rollout workspace": ENGINE_WORKSPACE}
    awake = engine | {"KV cache": max(0.0, kv_room)}
    if job.teacher == "rollout":
        awake["logits"] = servers.PREFILL_LOGIT * job.model.vocab * job.teacher_row
    asleep = {"reserve": TRAINER_CONTEXT + ENGINE_CONTEXT} if job.sleeps else awake | {"reserve": TRAINER_CONTEXT}
    waits = {} if job.critic is None else _named(_resting(job.critic))
    phases = {
        "rollout": _resting(job) | waits | awake | {"reserve": TRAINER_CONTEXT},
        "hand-over": _loaded(job) | waits | engine | {
            "gathered weights": _handed_over(job), "reserve": TRAINER_CONTEXT},
        "score": _loaded(job) | waits | asleep | _scoring(job),
    }  # fmt: skip
    if job.critic is not None:
        phases["values"] = _resting(job) | _named(_loaded(job.critic)) | asleep | _values(job.critic)
        phases["critic update"] = _resting(job) | _named(_training(job.critic)) | asleep | _update_blocks(job.critic)
    phases["update"] = _training(job) | waits | asleep | _update(job)
    if job.servers:
        phases["server"] = servers.memory(job, gpu_bytes, ENGINE_WORKSPACE)
    return Memory(
        phases={name: {part: parts[part] for part in PARTS if parts.get(part)} for name, parts in phases.items()},
        kv_room=kv_room,
        kv_need=sequences * context * kv,
        kv_longest=job.max_model_len * kv,
        sequences=sequences,
    )


def _resident(engine: Engine) -> dict[str, float]:
    """Sharded training state: AdamW keeps two moments in the weights' own type, gradients have it too."""
    one = engine.weight_bytes / engine.shards
    return {
        "actor weights": one * engine.kept,
        "gradients": one * engine.trainable,
        "optimizer": 2 * one * engine.trainable,
    }


def _resting(engine: Engine) -> dict[str, float]:
    """What of it stays on the GPU while another model works."""
    state = {} if engine.cpu_offload else _resident(engine)
    kept = {"actor weights": not engine.param_offload, "optimizer": not engine.optimizer_offload}
    return {part: size for part, size in state.items() if kept.get(part)}


def _loaded(engine: Engine) -> dict[str, float]:
    """What of it is there for a pass without gradient."""
    if engine.cpu_offload:
        return {}
    return _resting(engine) | {"actor weights": _resident(engine)["actor weights"]}


def _training(engine: Engine) -> dict[str, float]:
    """What of it is there for an update: verl loads all that it has moved to the host."""
    return {} if engine.cpu_offload else _resident(engine)


def _named(state: dict[str, float]) -> dict[str, float]:
    """Training state of the critic under its own names."""
    return {f"critic {part.removeprefix('actor ')}": size for part, size in state.items()}


def _handed_over(job: Job) -> float:
    """One whole tensor at a time in the kept type, and the bucket that carries it to the engine."""
    largest = max(job.model.embedding, job.model.largest_block / 3)
    return job.weight_bytes * largest + 2 * job.bucket


def _live_block(model: ModelShape, tokens: int, compute_bytes: int) -> float:
    """Tensors of one transformer block with flash attention: 16·h + 6·f bytes a token at two bytes a number."""
    return tokens * (8 * model.hidden + 3 * model.live_ffn) * compute_bytes


def _activations(engine: Engine) -> float:
    """Kept for the backward pass: every block's input, or without checkpointing every block's tensors."""
    model, tokens = engine.model, engine.update_tokens
    block = _live_block(model, tokens, engine.compute_bytes)
    if not engine.checkpointing:
        return model.layers * block
    return block + (0 if engine.activation_offload else model.layers * model.hidden * tokens * engine.compute_bytes)


def _pass(engine: Engine, model: ModelShape) -> dict[str, float]:
    """A pass of `model` without gradient and without what is made of its last block's output."""
    tokens, one = engine.score_tokens, engine.compute_bytes
    return {
        "activations": _live_block(model, tokens, one) + 2 * one * model.hidden * tokens,
        "gathered weights": _gathered(model, one, engine.reshards),
    }


def _scoring(job: Job) -> dict[str, float]:
    """The largest of old log-probabilities (with entropy), reference and teacher."""
    per_number = job.compute_bytes * (1 if job.unit_temperature else 2) + (0 if job.compiled else 8)

    def scored(model: ModelShape) -> dict[str, float]:
        return _pass(job, model) | {"logits": 0 if job.fused else model.vocab * job.score_tokens * per_number}

    passes = [scored(model) for model in ((job.model, job.ref_model) if job.reference else (job.model,))]
    return max(passes, key=lambda parts: sum(parts.values()))


def _values(critic: Engine) -> dict[str, float]:
    """The critic's pass over the rows; one number a token comes out of it."""
    return _pass(critic, critic.model)


def _gathered(model: ModelShape, compute_bytes: int, reshards: bool) -> float:
    """Whole weights in the computing type: this block, the next and an embedding; all where they stay."""
    return compute_bytes * (2 * model.largest_block + model.embedding if reshards else model.params)


def _update_blocks(engine: Engine) -> dict[str, float]:
    """An update without what is made of the last block's output."""
    block, embedding = (engine.compute_bytes * n for n in (engine.model.largest_block, engine.model.embedding))
    gathered = _gathered(engine.model, engine.compute_bytes, engine.reshards)
    if not engine.lora_rank:  # unsharded gradients, and a block of them in the type in which they are exchanged
        gathered += block + embedding + engine.reduce_bytes * engine.model.largest_block
    return {"activations": _activations(engine), "gathered weights": gathered}


def _update(job: Job) -> dict[str, float]:
    parts = _update_blocks(job)
    parts["logits"] = 0 if job.fused else job.model.vocab * job.update_tokens * _bytes_per_logit(job)
    if job.distribution:
        parts["teacher"] = _distributions(job)
    return parts


def _bytes_per_logit(job: Job) -> int:
    """Bytes of an update for each token and word.

    The logits in the computing type; flash attention's cross entropy writes its gradient over them, unless entropy
    or a divergence of whole distributions needs them too. Then each has a gradient of its own (they are added up, so
    two at a time), and without a compiled kernel entropy keeps the softmax and works on two more float32 tensors.
    """
    one = job.compute_bytes
    scaled = 0 if job.unit_temperature else one
    if job.entropy and not job.compiled:
        return 2 * one + scaled + EAGER_ENTROPY
    return (3 if job.entropy or job.distribution else 1) * one + scaled


def _distributions(job: Job) -> float:
    """The teacher's pass in the update: its logits at the sampled positions, copied into their order, and a chunk.

    A trust region mixes two such passes in float32.
    """
    rows = max(1, job.update_tokens // job.row)
    sampled, vocab = rows * job.response, job.scorer.vocab
    logits = (2 * job.compute_bytes + (4 if job.trust_region else 0)) * vocab * sampled
    chunk = _CHUNK_COPIES * 4 * vocab * min(FULL_CHUNK, sampled)
    # the policy's own weights are gathered anyway, those of a reference beside them
    other = _gathered(job.scorer, job.compute_bytes, job.reshards) if job.teacher == "ref" else 0
    return logits + chunk + _live_block(job.scorer, rows * job.teacher_row, job.compute_bytes) + other
