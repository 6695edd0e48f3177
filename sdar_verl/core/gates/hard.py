"""A gate that is either open or closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sdar_verl.core.gates.base import GATES
from sdar_verl.core.tokens import Tokens

if TYPE_CHECKING:
    from sdar_verl.core.config import DistillationConfig


@GATES.register("hard")
def hard_gate(tokens: Tokens, config: DistillationConfig) -> torch.Tensor:
    """g_t = 1 where Δ_t > ``gate_threshold`` (nats), else 0, shape ``(B, T)``: at 0 the limit of `gap` as β grows."""
    return (tokens.gap > config.gate_threshold).to(tokens.gap.dtype)
