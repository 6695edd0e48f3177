"""Scoring the sampled tokens under the privileged prompt, by the actor's (or the reference's) own workers.

The rows go through a partition of their own in TransferQueue: the workers write ``log_probs`` back to the keys they
read, and the training rows' ``log_probs`` must stay the student's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
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


def score_teacher(
    batch: KVBatchMeta,
    prompts: Mapping[str, TeacherRow],
    score: Any,
    extra_info: dict[str, Any],
    *,
    with_prompts: bool = False,
) -> dict[str, float]:
    """Write ``teacher_log_probs`` and ``teacher_mask`` (0 on rows that have nothing to be taught by) to `batch`.

    Args:
        batch: training rows in the order in which the workers will get them. Rows that pad the batch keep their own
            prompt as the teacher's; their mask is 0, so they never count.
        prompts: of every real row, by key.
        score: a worker group's ``compute_log_prob`` or ``compute_ref_log_prob``.
        extra_info: temperature and flags, as for the student's own log-probabilities.
        with_prompts: also write the privileged prompts, for a teacher that is computed again during the update.

    Returns:
        Lengths and coverage over the real rows.

    Raises:
        SdarError: no row is real, or the scores do not line up with the responses.
    """
    data = stored.read(batch, ["prompts", "responses", "response_mask"])
    own, responses, masks = (list(data[name].unbind()) for name in ("prompts", "responses", "response_mask"))
    fields, tags, taught = [], [], []
    for key, tag, prompt, response, mask in zip(batch.keys, batch.tags, own, responses, masks, strict=True):
        if not stored.is_padding(tag):
            prompt = torch.tensor(prompts[key].ids, dtype=torch.int64)
        taught.append(mask if key in prompts and prompts[key].taught else torch.zeros_like(mask))
        input_ids = torch.cat([prompt, response])
        fields.append(
            {
                "prompts": prompt,
                "responses": response,
                "response_mask": mask,
                "loss_mask": mask,
                "input_ids": input_ids,
                "position_ids": torch.arange(len(input_ids), dtype=torch.int64),
                "multi_modal_inputs": {},
            }
        )
        tags.append({"prompt_len": len(prompt), "response_len": len(response), "seq_len": len(input_ids)})
    if not prompts:
        raise SdarError("the batch holds no real rows: every episode of the step failed; see episodes/train.jsonl")

    keys = list(batch.keys)
    rows = KVBatchMeta(partition_id=PARTITION, keys=keys, tags=tags, extra_info=dict(extra_info))
    tq.kv_batch_put(keys=keys, partition_id=PARTITION, fields=list_of_dict_to_tensordict(fields), tags=tags)
    try:
        score(rows)
        scored = tq.kv_batch_get(keys=keys, partition_id=PARTITION, select_fields=["log_probs", "response_mask"])
        log_probs = response_from_nested(scored["log_probs"], scored["response_mask"])
    finally:
        tq.kv_clear(keys=keys, partition_id=PARTITION)
    found, expected = log_probs.offsets().diff().tolist(), [len(response) for response in responses]
    if found != expected:
        raise SdarError("teacher scores do not line up with the sampled responses; this is a bug, please report it")
    written = {TEACHER_FIELD: log_probs, TEACHER_MASK: nested(taught)}
    if with_prompts:
        written[TEACHER_PROMPTS] = nested([row["prompts"] for row in fields])
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(written, batch_size=len(keys)))
    return _coverage(prompts.values())


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
