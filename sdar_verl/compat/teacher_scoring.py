"""Scores of the sampled tokens under the privileged prompt, written to the training rows.

Who scores is a `Scorer`; here is the one that asks verl's own workers. Its rows go through a partition of their own in
TransferQueue: the workers write ``log_probs`` back to the keys they read, and the training rows' ``log_probs`` must
stay the student's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils.tensordict_utils import list_of_dict_to_tensordict
from verl.workers.utils.padding import response_from_nested

from sdar_verl.agent.privileged import TeacherRow
from sdar_verl.compat import rows as stored
from sdar_verl.compat.loss import TEACHER_FIELD, TEACHER_MASK
from sdar_verl.compat.teacher_forward import TEACHER_PROMPTS, nested
from sdar_verl.errors import SdarError

PARTITION = "teacher"


@dataclass(frozen=True)
class ScoredRow:
    """One row to score: token ids and mask as 1-d tensors; ``taught`` is False where the score never counts."""

    prompt: torch.Tensor
    response: torch.Tensor
    mask: torch.Tensor
    taught: bool


@dataclass(frozen=True)
class Scores:
    """Log-probabilities (nats) of each row's response, or None where this step is not to be distilled; and metrics."""

    log_probs: list[torch.Tensor] | None
    metrics: dict[str, float]


Scorer = Callable[[Sequence[ScoredRow]], Scores]


def score_teacher(
    batch: KVBatchMeta, prompts: Mapping[str, TeacherRow], scorer: Scorer, *, with_prompts: bool = False
) -> tuple[bool, dict[str, float]]:
    """Write ``teacher_log_probs`` and ``teacher_mask`` (0 on rows that have nothing to be taught by) to `batch`.

    Args:
        batch: training rows in the order in which the workers will get them. Rows that pad the batch keep their own
            prompt as the teacher's; their mask is 0, so they never count.
        prompts: of every real row, by key.
        scorer: gives the scores; where it gives none, every row's mask is 0.
        with_prompts: also write the privileged prompts, for a teacher that is computed again during the update.

    Returns:
        Whether there are scores; and metrics: lengths and coverage over the real rows, and the scorer's own.

    Raises:
        SdarError: no row is real, or the scores do not line up with the responses.
    """
    if not prompts:
        raise SdarError("the batch holds no real rows: every episode of the step failed; see episodes/train.jsonl")
    data = stored.read(batch, ["prompts", "responses", "response_mask"])
    columns = (list(data[name].unbind()) for name in ("prompts", "responses", "response_mask"))
    rows = []
    for key, tag, prompt, response, mask in zip(batch.keys, batch.tags, *columns, strict=True):
        if not stored.is_padding(tag):
            prompt = torch.tensor(prompts[key].ids, dtype=torch.int64)
        rows.append(ScoredRow(prompt, response, mask, taught=key in prompts and prompts[key].taught))

    scores = scorer(rows)
    scored = scores.log_probs is not None
    log_probs = scores.log_probs if scored else [torch.zeros(len(row.response)) for row in rows]
    if [len(found) for found in log_probs] != [len(row.response) for row in rows]:
        raise SdarError("teacher scores do not line up with the sampled responses; this is a bug, please report it")
    taught = [row.mask if scored and row.taught else torch.zeros_like(row.mask) for row in rows]
    written = {TEACHER_FIELD: nested(log_probs), TEACHER_MASK: nested(taught)}
    if with_prompts:
        written[TEACHER_PROMPTS] = nested([row.prompt for row in rows])
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(written, batch_size=len(rows)))
    return scored, {**_coverage(prompts.values()), **scores.metrics}


def by_workers(score: Any, extra_info: Mapping[str, Any]) -> Scorer:
    """A scorer that asks verl's workers.

    Args:
        score: a worker group's ``compute_log_prob`` or ``compute_ref_log_prob``; the number of rows must be a multiple
            of its ranks.
        extra_info: temperature and flags, as for the student's own log-probabilities.
    """

    def scorer(rows: Sequence[ScoredRow]) -> Scores:
        fields, tags = [], []
        for row in rows:
            input_ids = torch.cat([row.prompt, row.response])
            fields.append(
                {
                    "prompts": row.prompt,
                    "responses": row.response,
                    "response_mask": row.mask,
                    "loss_mask": row.mask,
                    "input_ids": input_ids,
                    "position_ids": torch.arange(len(input_ids), dtype=torch.int64),
                    "multi_modal_inputs": {},
                }
            )
            tags.append({"prompt_len": len(row.prompt), "response_len": len(row.response), "seq_len": len(input_ids)})
        keys = [f"{PARTITION}_{number}" for number in range(len(rows))]
        meta = KVBatchMeta(partition_id=PARTITION, keys=keys, tags=tags, extra_info=dict(extra_info))
        tq.kv_batch_put(keys=keys, partition_id=PARTITION, fields=list_of_dict_to_tensordict(fields), tags=tags)
        try:
            score(meta)
            found = tq.kv_batch_get(keys=keys, partition_id=PARTITION, select_fields=["log_probs", "response_mask"])
            return Scores(list(response_from_nested(found["log_probs"], found["response_mask"]).unbind()), {})
        finally:
            tq.kv_clear(keys=keys, partition_id=PARTITION)

    return scorer


def _coverage(rows: Collection[TeacherRow]) -> dict[str, float]:
    """Shares of rows with each kind of context, and lengths of the prompts in tokens."""
    lengths = [len(row.ids) for row in rows]
    parts = Counter(part for row in rows for part in row.parts)
    return {
        "sdar/taught_share": sum(row.taught for row in rows) / len(rows),
        "sdar/task_skill_share": sum(row.task_skill for row in rows) / len(rows),
        "sdar/teacher_shrunk_share": sum(row.shrunk for row in rows) / len(rows),
        "sdar/teacher_prompt_tokens/mean": sum(lengths) / len(rows),
        "sdar/teacher_prompt_tokens/max": float(max(lengths)),
        **{f"sdar/context/{part}_share": count / len(rows) for part, count in sorted(parts.items())},
    }
