"""A gate that opens where the student is unsure or the teacher agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sdar_verl.core.gates.base import GATES
from sdar_verl.core.tokens import Tokens

if TYPE_CHECKING:
    from sdar_verl.core.config import DistillationConfig


@GATES.register("soft_or", needs=("entropy",))
def soft_or_gate(tokens: Tokens, config: DistillationConfig) -> torch.Tensor:
    """g_t = σ(β·[1 − (1 − h_t)(1 − Δ_t)]), shape ``(B, T)`` (paper's ablation; h_t, Δ_t in nats, neither is bounded).

    An "or" only while both lie in [0, 1]: with h_t > 1 the bracket falls as Δ_t grows.
    """
    return torch.sigmoid(config.beta * (1 - (1 - tokens.entropy) * (1 - tokens.gap)))
