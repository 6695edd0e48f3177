"""What is computed over all rows of a step before its updates: advantages beside verl's own, and the mean gate."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from verl.workers.utils.padding import response_to_nested

from sdar_verl.compat import rows
from sdar_verl.compat.loss import TEACHER_FIELD, TEACHER_MASK
from sdar_verl.core import (
    ADVANTAGES,
    DistillationConfig,
    StepGroupsConfig,
    discounted_returns,
    flatten,
    resolve,
    step_advantages,
)
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
    data = _read(batch, ["old_log_probs", TEACHER_FIELD, TEACHER_MASK, "advantages"])
    padded = data.to_padded_tensor()
    sampled = padded["response_mask"].bool()
    tokens = as_tokens(padded["old_log_probs"], padded[TEACHER_FIELD], sampled * padded[TEACHER_MASK])
    zeros = torch.zeros_like(tokens.gap)
    advantages = torch.where(sampled, padded["advantages"].to(zeros.dtype), zeros) if config.rl else zeros
    shaped = torch.where(tokens.mask, ADVANTAGES.get(config.advantage)(advantages, tokens, config, coef), advantages)
    _write_advantages(batch, shaped, data["response_mask"])
    stats = distillation_stats(tokens, torch.ones_like(zeros), shaped - advantages, coef)
    stats["sdar/advantage_change"] = stats.pop("sdar/loss")
    return resolve(flatten({name: stat for name, stat in stats.items() if "gate" not in name}))


def add_step_advantages(batch: Any, config: StepGroupsConfig) -> dict[str, float]:
    """Add ``weight`` times the step-level advantage to the ``advantages`` of every real row (one row a turn).

    A turn's return is discounted over the environment's rewards from it on; the penalty of its own invalid action is
    taken off without discount (as in verl-agent).

    Returns:
        Mean size of the groups that turns are compared in, share of turns that are alone, mean size of the advantage.
    """
    data = _read(batch, ["advantages", "extra_fields"])
    extras = rows.objects(data, "extra_fields")
    numbers, returns, states = [], [], []
    for session, own in rows.sessions(batch).items():
        later = discounted_returns([extras[number]["gained"] for number in own], config.gamma)
        numbers += own
        returns += [value - extras[number]["penalty"] for number, value in zip(own, later, strict=True)]
        states += [(session.rpartition("_")[0], extras[number]["state"]) for number in own]
    found = step_advantages(torch.tensor(returns, dtype=torch.float32), states, config.norm)
    gains = torch.zeros(len(batch.keys), dtype=torch.float32)
    gains[numbers] = config.weight * found
    mask = data["response_mask"].to_padded_tensor(0)
    shaped = data["advantages"].to_padded_tensor(0.0) + gains[:, None] * mask
    _write_advantages(batch, shaped, data["response_mask"])
    sizes = Counter(states)
    return {
        "step_groups/size_mean": sum(sizes[state] for state in states) / len(states),
        "step_groups/alone_share": sum(sizes[state] == 1 for state in states) / len(states),
        "step_groups/advantage_abs_mean": float(found.abs().mean()),
    }


def step_gate_mean(batch: Any, config: DistillationConfig) -> float:
    """Mean gate over all distilled tokens of a step, with the policy before its updates."""
    entropy = ["entropy"] if "entropy" in config.needs else []
    padded = _read(batch, ["old_log_probs", TEACHER_FIELD, TEACHER_MASK, *entropy]).to_padded_tensor()
    tokens = as_tokens(
        padded["old_log_probs"],
        padded[TEACHER_FIELD],
        padded["response_mask"] * padded[TEACHER_MASK],
        entropy=padded["entropy"] if entropy else None,
    )
    return mean_gate(tokens, config) if tokens.mask.any() else 0.0  # no row of the step had anything to learn from


def _read(batch: Any, fields: list[str]) -> TensorDict:
    return rows.read(batch, ["response_mask", *fields])


def _write_advantages(batch: Any, advantages: torch.Tensor, response_mask: torch.Tensor) -> None:
    """Padded `advantages` in the rows' own lengths, which the nested `response_mask` has."""
    fields = TensorDict({"advantages": response_to_nested(advantages, response_mask)}, batch_size=len(batch.keys))
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)
