"""The tokens of a whole step, read once before its updates: for advantages that the teacher shapes, and mean gates."""

from __future__ import annotations

from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from verl.workers.utils.padding import response_to_nested

from sdar_verl.compat.loss import TEACHER_FIELD
from sdar_verl.core import ADVANTAGES, DistillationConfig, flatten, resolve
from sdar_verl.core.gap import as_tokens
from sdar_verl.core.gates import mean_gate
from sdar_verl.core.metrics import distillation_stats


def shape_advantages(batch: Any, config: DistillationConfig, coef: float) -> dict[str, float]:
    """Replace the ``advantages`` of every row by those of ``config.advantage``.

    Args:
        batch: a step's rows, with old and teacher log-probabilities and the RL backbone's advantages.
        config: with ``place=advantage``.
        coef: λ of this step.

    Returns:
        The gap's metrics as with ``place=loss``, and ``sdar/advantage_change``: mean of Â_t − A over response tokens.
    """
    data = _read(batch, ["old_log_probs", TEACHER_FIELD, "advantages"])
    nested_mask = data["response_mask"]
    padded = data.to_padded_tensor()
    tokens = as_tokens(padded["old_log_probs"], padded[TEACHER_FIELD], padded["response_mask"])
    zeros = torch.zeros_like(tokens.gap)
    advantages = torch.where(tokens.mask, padded["advantages"].to(zeros.dtype), zeros) if config.rl else zeros
    shaped = torch.where(tokens.mask, ADVANTAGES.get(config.advantage)(advantages, tokens, config, coef), zeros)
    fields = TensorDict({"advantages": response_to_nested(shaped, nested_mask)}, batch_size=len(batch.keys))
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)
    stats = distillation_stats(tokens, torch.ones_like(zeros), shaped - advantages, coef)
    stats["sdar/advantage_change"] = stats.pop("sdar/loss")
    return resolve(flatten({name: stat for name, stat in stats.items() if "gate" not in name}))


def step_gate_mean(batch: Any, config: DistillationConfig) -> float:
    """Mean gate over all response tokens of a step, with the policy before its updates."""
    entropy = ["entropy"] if "entropy" in config.needs else []
    padded = _read(batch, ["old_log_probs", TEACHER_FIELD, *entropy]).to_padded_tensor()
    tokens = as_tokens(
        padded["old_log_probs"],
        padded[TEACHER_FIELD],
        padded["response_mask"],
        entropy=padded["entropy"] if entropy else None,
    )
    return mean_gate(tokens, config)


def _read(batch: Any, fields: list[str]) -> TensorDict:
    return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["response_mask", *fields])
