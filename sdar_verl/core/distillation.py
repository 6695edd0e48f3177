"""The distillation term: gap, gate, divergence and aggregation put together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sdar_verl.core.aggregation import aggregate
from sdar_verl.core.config import DistillationConfig
from sdar_verl.core.divergences import DIVERGENCES
from sdar_verl.core.gap import as_tokens
from sdar_verl.core.gates import gate_weights
from sdar_verl.core.metrics import Stat, distillation_stats
from sdar_verl.core.ratio import importance_ratio


@dataclass(frozen=True)
class DistillationOutput:
    """Attributes:
    loss: scalar with gradient, λ included: add it to the RL loss of the same micro-batch.
    metrics: `Stat` by metric name, to be merged over micro-batches and ranks.
    """

    loss: torch.Tensor
    metrics: dict[str, Stat]


def distillation_loss(
    student_log_probs: torch.Tensor,
    teacher_log_probs: torch.Tensor,
    response_mask: torch.Tensor,
    config: DistillationConfig,
    *,
    coef: float,
    entropy: torch.Tensor | None = None,
    old_log_probs: torch.Tensor | None = None,
    distribution: torch.Tensor | None = None,
    gate_mean: float | None = None,
    num_tokens_global: float | None = None,
    dp_size: int = 1,
    num_sequences_global: float | None = None,
    loss_agg_mode: str = "token-mean",
    loss_scale_factor: float | None = None,
) -> DistillationOutput:
    """``λ · Agg( sg[g_t − b] · ρ_t · d_t )`` over the response tokens of one micro-batch.

    With the gap gate and the sampled-token divergence this is the paper's L_SDAR:
    g_t = σ(β·Δ_t), d_t = sg[log π_T(y_t | s_t⁺)] − log π_θ(y_t | s_t), gradient −λ·Agg(g_t·∇log π_θ(y_t | s_t)).
    The gate is detached whatever it computes: without that the gradient would gain the term β·Δ·g·(1−g).
    The baseline b is 0 and the importance ratio ρ is 1 unless configured otherwise.

    Args:
        student_log_probs: ``(B, T)``, log π_θ of the sampled tokens under the student's prompt, with gradient, nats.
        teacher_log_probs: ``(B, T)``, the same tokens under the privileged prompt; used without gradient.
        response_mask: ``(B, T)``, 1 on response tokens. Other positions may hold anything, NaN included.
        config: gate, β, baseline, divergence and importance ratio.
        coef: λ of this step, ``config.coef_at(step)``.
        entropy: ``(B, T)``, the student's entropy in nats, for the gates that need it.
        old_log_probs: ``(B, T)``, log π_old of the sampled tokens, for the importance ratio.
        distribution: ``(B, T)``, divergences of the distributions, with gradient, for ``full`` and ``topk``.
        gate_mean: see `gate_weights`.
        num_tokens_global: response tokens of the mini-batch over all ranks.
        dp_size: data-parallel ranks whose gradients are averaged.
        num_sequences_global: rows of the mini-batch over all ranks, for the ``seq-`` aggregation modes.
        loss_agg_mode: as the RL loss has it, see `aggregate`.
        loss_scale_factor: see `aggregate`.

    Raises:
        ValueError: shapes differ, a value on a response token is not finite, λ is negative or not finite, a global
            count is missing or too small, or a part needs a tensor that was not given.
    """
    if not math.isfinite(coef) or coef < 0:
        raise ValueError(f"coef (lambda) must be finite and >= 0, got {coef!r}")
    given = {"entropy": entropy, "old": old_log_probs, "distribution": distribution}
    lacking = sorted(name for name in config.needs if given[name] is None)
    if lacking:
        parts = f"gate={config.gate}, divergence={config.divergence}, importance_ratio={config.importance_ratio}"
        raise ValueError(f"{parts} need {', '.join(lacking)}")
    tokens = as_tokens(
        student_log_probs,
        teacher_log_probs,
        response_mask,
        entropy=entropy,
        old_log_probs=old_log_probs,
        distribution=distribution,
    )
    gate, weight = gate_weights(tokens, config, gate_mean)
    ratio = importance_ratio(tokens, config.importance_ratio, config.ratio_clip)
    divergence = DIVERGENCES.get(config.divergence)(tokens)
    if config.divergence_clip is not None:
        divergence = divergence.clamp(max=config.divergence_clip)
    divergence = ratio * divergence
    term = aggregate(
        weight * divergence,
        tokens.mask,
        mode=loss_agg_mode,
        num_tokens=num_tokens_global,
        num_sequences=num_sequences_global,
        dp_size=dp_size,
        scale_factor=loss_scale_factor,
    )
    stats = distillation_stats(tokens, gate, (weight * divergence).detach(), coef)
    return DistillationOutput(loss=coef * term, metrics=stats)
