"""Token-level records of a few episodes a step, for the report's coloured view."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transfer_queue as tq

from sdar_verl.agent.privileged import TeacherRow
from sdar_verl.compat import rows
from sdar_verl.compat.loss import TEACHER_FIELD, TEACHER_MASK
from sdar_verl.core.gap import as_tokens
from sdar_verl.core.gates import GATES
from sdar_verl.evaluation.jsonl import JsonlWriter
from sdar_verl.evaluation.records import TokenRecord, TokenTurn
from sdar_verl.settings import Settings


def write_token_records(
    path: Path, batch: Any, prompts: Mapping[str, TeacherRow], step: int, tokenizer: Any, settings: Settings
) -> None:
    """Append the first ``sdar.record.token_episodes`` episodes of `batch` (sorted by key) to `path`.

    The values are those before the update: student and teacher log-probabilities (nats), gap and gate per token. Gap
    and gate are 0 on rows that nothing is taught.
    """
    sessions = rows.sessions(batch)
    chosen = sorted(sessions)[: settings.token_episodes]
    if not chosen:
        return
    with JsonlWriter(path) as writer:
        for session in chosen:
            keys = [batch.keys[number] for number in sessions[session]]
            writer.write(_record(session, keys, batch.partition_id, prompts[keys[0]], step, tokenizer, settings))


def _record(
    session: str, keys: list[str], partition: str, prompt: TeacherRow, step: int, tokenizer: Any, settings: Settings
) -> TokenRecord:
    columns = ["responses", "response_mask", "old_log_probs", TEACHER_FIELD, TEACHER_MASK]
    columns += ["entropy"] if "entropy" in settings.distillation.needs else []
    fields = [*columns, "prompts", "extra_fields", "task"]
    data = tq.kv_batch_get(keys=keys, partition_id=partition, select_fields=fields)
    extras, tasks = rows.objects(data, "extra_fields"), rows.objects(data, "task")
    task = tasks[0]
    values = [list(data[name].unbind()) for name in columns]
    turns = [_turn(tokenizer, settings, *row) for row in zip(*values, strict=True)]
    uid, _, number = session.rpartition("_")
    return TokenRecord(
        step=step,
        task_id=task["id"],
        task_type=task["task_type"],
        uid=uid,
        session=int(number),
        won=bool(extras[0]["won"]),
        turns=turns,
        student_prompt=tokenizer.decode(data["prompts"].unbind()[0]),
        teacher_prompt=tokenizer.decode(prompt.ids),
    )


def _turn(
    tokenizer: Any,
    settings: Settings,
    response: torch.Tensor,
    mask: torch.Tensor,
    student: torch.Tensor,
    teacher: torch.Tensor,
    taught: torch.Tensor,
    entropy: torch.Tensor | None = None,
) -> TokenTurn:
    tokens = as_tokens(
        student[None].float(),
        teacher[None].float(),
        mask[None],
        entropy=None if entropy is None else entropy[None].float(),
    )
    gate = GATES.get(settings.distillation.gate)(tokens, settings.distillation)[0] * taught
    sampled = mask.bool()
    ids = response[sampled].tolist()
    return TokenTurn(
        observation=tokenizer.decode(response[~sampled].tolist()),
        tokens=[tokenizer.decode([i]) for i in ids],
        response_ids=ids,
        student_logp=tokens.student[0][sampled].tolist(),
        teacher_logp=tokens.teacher[0][sampled].tolist(),
        gap=(tokens.gap[0] * taught)[sampled].tolist(),
        gate=gate[sampled].tolist(),
    )
