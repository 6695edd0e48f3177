"""From a ``(B, T)`` matrix to one scalar whose gradient does not depend on micro-batches or on the world size.

But for ``seq-mean-token-sum-norm`` without a `scale_factor`, as in verl.

Each micro-batch contributes its share of one *global* mean: its own masked sum over the number of response tokens (or
sequences) of the whole mini-batch on all ranks. Micro-batch losses add up, and data-parallel training averages the
gradients over ranks, hence the factor `dp_size`. The modes and formulas are those of verl's ``loss_agg_mode``, so the
distillation term and the RL loss are always weighted alike.
"""

from __future__ import annotations

import torch

MODES = ("token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-sum-norm", "seq-mean-token-mean")


def aggregate(
    values: torch.Tensor,
    mask: torch.Tensor,
    *,
    mode: str = "token-mean",
    num_tokens: float | None = None,
    num_sequences: float | None = None,
    dp_size: int = 1,
    scale_factor: float | None = None,
) -> torch.Tensor:
    """Reduce per-token `values` ``(B, T)`` under `mask` ``(B, T)`` to a scalar.

    ==========================  =====================================================================
    ``token-mean``              dp_size · Σ values / num_tokens
    ``token-sum``               dp_size · Σ values
    ``seq-mean-token-sum``      dp_size · Σ values / num_sequences
    ``seq-mean-token-sum-norm`` the same, divided by scale_factor (default: T, the width of this micro-batch)
    ``seq-mean-token-mean``     dp_size · Σ_rows (Σ_t values / tokens of the row) / num_sequences
    ==========================  =====================================================================

    Args:
        values: per-token values; positions outside the mask are replaced by 0 before the sum, whatever they hold.
        mask: True on response tokens. Rows without any count nowhere.
        num_tokens: response tokens of the mini-batch over all ranks; needed for ``token-mean`` when `dp_size` > 1,
            otherwise this batch's own number.
        num_sequences: rows of the mini-batch over all ranks; needed for the ``seq-`` modes when `dp_size` > 1,
            otherwise this batch's own number of rows with at least one response token.
        dp_size: number of data-parallel ranks whose gradients are averaged.
        scale_factor: constant divisor of ``seq-mean-token-sum-norm``.

    Returns:
        A scalar with the gradient of `values`; 0 when there is nothing to count.

    Raises:
        ValueError: unknown mode, shapes that differ, a missing global count, or a global count below what this
            batch alone holds.
    """
    if mode not in MODES:
        raise ValueError(f"unknown loss_agg_mode {mode!r}; known: {', '.join(MODES)}")
    if values.shape != mask.shape or values.dim() != 2:
        raise ValueError(f"values and mask must share one shape (B, T), got {tuple(values.shape)}, {tuple(mask.shape)}")
    mask = mask.bool()
    values = torch.where(mask, values, torch.zeros_like(values))
    if mode == "token-sum":
        return values.sum() * dp_size
    if mode == "token-mean":
        return values.sum() / _total("num_tokens", num_tokens, int(mask.sum()), dp_size) * dp_size

    row_tokens = mask.sum(dim=-1)
    row_values = values.sum(dim=-1)
    if mode == "seq-mean-token-mean":
        row_values = row_values / row_tokens.clamp(min=1)
    loss = row_values.sum() / _total("num_sequences", num_sequences, int((row_tokens > 0).sum()), dp_size) * dp_size
    if mode == "seq-mean-token-sum-norm":
        loss = loss / (scale_factor if scale_factor is not None else values.shape[-1])
    return loss


def _total(name: str, total: float | None, local: int, dp_size: int) -> float:
    """The global divisor, checked against what this batch holds; at least 1, as an empty sum is 0 anyway."""
    if total is None:
        if dp_size > 1:
            raise ValueError(f"{name} is needed when dp_size > 1: pass the count over all {dp_size} ranks")
        total = local
    if total < local:
        raise ValueError(f"{name}={total} is smaller than the {local} this batch alone holds; pass the global count")
    return max(total, 1)
