"""Teacher servers that a run starts beside its trainer (``sdar.teacher.placement=server``): where they find room, and
what they take of a GPU."""

from __future__ import annotations

import math

from sdar_verl.plan.catalogue import Instance
from sdar_verl.plan.job import Job

PASS_TOKENS = 2048  # of sdar_verl.compat.teacher_pool; a test holds the two together
PREFILL_LOGIT = 10  # bytes a logit of a scored prompt: in half precision, in float32, and its log-softmax


def machines(job: Job, instance: Instance) -> int:
    """Machines of a run: the trainer's, and as many more of their kind as servers need that find no free GPUs there."""
    free = max(0, instance.gpus - job.gpus // job.nodes) // job.server_tp * job.nodes
    left = max(0, job.servers - free)
    return job.nodes + math.ceil(left / max(1, instance.gpus // job.server_tp))


def memory(job: Job, gpu_bytes: float, workspace: float) -> dict[str, float]:
    """Part to bytes of one GPU of a server.

    vLLM takes its share; the logits of a pass come on top, since its memory profile leaves them out.
    """
    weights = job.rollout_bytes * job.scorer.params / job.server_tp
    room = job.server_share * gpu_bytes - weights - workspace
    return {
        "teacher": weights,
        "rollout workspace": workspace,
        "KV cache": max(0.0, room),
        "logits": PREFILL_LOGIT * job.scorer.vocab * min(PASS_TOKENS, job.teacher_row + 1),
    }


def longest(job: Job) -> float:
    """Bytes of keys and values on one GPU of a server that its longest request takes."""
    per_token = job.scorer.kv_bytes_per_token(job.rollout_bytes) / min(job.server_tp, job.scorer.kv_heads)
    return (job.teacher_row + 1) * per_token
