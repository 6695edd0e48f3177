"""Scoring the sampled tokens under the privileged prompt, by the actor's (or the reference's) own workers.

The rows go through a partition of their own in TransferQueue: the workers write ``log_probs`` back to the keys they
read, and the training rows' ``log_probs`` must stay the student's.
"""

from __future__ import annotations

from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils.tensordict_utils import list_of_dict_to_tensordict
from verl.workers.utils.padding import response_from_nested

from sdar_verl.compat.loss import TEACHER_FIELD
from sdar_verl.compat.teacher_forward import TEACHER_PROMPTS, nested
from sdar_verl.errors import SdarError

PARTITION = "teacher"


def score_teacher(
    batch: KVBatchMeta, score: Any, extra_info: dict[str, Any], *, with_prompts: bool = False
) -> dict[str, float]:
    """Write `teacher_log_probs` to every row of `batch`.

    Args:
        batch: training rows in the order in which the workers will get them. Rows that pad the batch keep their own
            prompt as the teacher's; their mask is 0, so they never count.
        score: a worker group's ``compute_log_prob`` or ``compute_ref_log_prob``.
        extra_info: temperature and flags, as for the student's own log-probabilities.
        with_prompts: also write the privileged prompts, for a teacher that is computed again during the update.

    Returns:
        Lengths and coverage over the real rows.

    Raises:
        SdarError: a row has no privileged prompt, or the scores do not line up with its response.
    """
    data = tq.kv_batch_get(
        keys=batch.keys,
        partition_id=batch.partition_id,
        select_fields=["prompts", "responses", "response_mask", "extra_fields"],
    )
    prompts, responses, masks = (list(data[name].unbind()) for name in ("prompts", "responses", "response_mask"))
    extras = [getattr(extra, "data", extra) for extra in data["extra_fields"]]
    fields, tags, lengths, shares = [], [], [], {"task_skill": 0, "shrunk": 0}
    for key, tag, prompt, response, mask, extra in zip(
        batch.keys, batch.tags, prompts, responses, masks, extras, strict=True
    ):
        if not tag.get("is_padding", False):
            ids = extra.get("teacher_prompt_ids")
            if not ids:
                raise SdarError(f"row {key} has no privileged prompt: the agent loop did not build one")
            prompt = torch.tensor(ids, dtype=torch.int64)
            lengths.append(len(ids))
            for name in shares:
                shares[name] += bool(extra[name])
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
    if not lengths:
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
    written = {TEACHER_FIELD: log_probs}
    if with_prompts:
        written[TEACHER_PROMPTS] = nested([row["prompts"] for row in fields])
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(written, batch_size=len(keys)))
    count = len(lengths)
    return {
        "sdar/task_skill_share": shares["task_skill"] / count,
        "sdar/teacher_shrunk_share": shares["shrunk"] / count,
        "sdar/teacher_prompt_tokens/mean": sum(lengths) / count,
        "sdar/teacher_prompt_tokens/max": float(max(lengths)),
    }
