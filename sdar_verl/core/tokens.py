"""What gates and divergences see: the sampled tokens of a batch, already safe to compute with."""

from __future__ import annotations

from dataclasses import dataclass

import torch

MAX_LOG_RATIO = 20.0  # nats; e^20 is far above any useful weight and far below overflow


@dataclass(frozen=True)
class Tokens:
    """Log-probabilities of the sampled response tokens, in nats, each of shape ``(B, T)``.

    Positions outside `mask` hold 0, so arithmetic on them is finite and their gradient is zero.

    Attributes:
        student: log π_θ(y_t | s_t), with gradient.
        teacher: log π_T(y_t | s_t⁺), without gradient.
        gap: Δ_t = sg[teacher − student], without gradient.
        mask: bool, True on response tokens.
        entropy: h_t of the student's next-token distribution, without gradient; None where no part needs it.
        old: log π_old(y_t | s_t) of the policy before the step's updates, without gradient; None likewise.
        distribution: divergence of the whole distributions at each token, in nats, with gradient; None likewise.
    """

    student: torch.Tensor
    teacher: torch.Tensor
    gap: torch.Tensor
    mask: torch.Tensor
    entropy: torch.Tensor | None = None
    old: torch.Tensor | None = None
    distribution: torch.Tensor | None = None
