"""Divergences between distributions; their values come from the logits, see `sdar_verl.core.distributions`."""

from __future__ import annotations

import torch

from sdar_verl.core.divergences.base import DIVERGENCES
from sdar_verl.core.tokens import Tokens


@DIVERGENCES.register("full", needs=("distribution",))
def full(tokens: Tokens) -> torch.Tensor:
    """d_t = D_α of the whole vocabulary after y_<t, shape ``(B, T)``, nats, ≥ 0."""
    return tokens.distribution


@DIVERGENCES.register("topk", needs=("distribution",))
def topk(tokens: Tokens) -> torch.Tensor:
    """d_t = D_α on the likeliest tokens after y_<t, shape ``(B, T)``, nats, ≥ 0."""
    return tokens.distribution
