"""SDAR's gate: open where the privileged teacher agrees with the sampled token, closed where it disagrees."""

from __future__ import annotations

import torch

from sdar_verl.core.gates.base import GATES
from sdar_verl.core.tokens import Tokens


@GATES.register("gap")
def gap_gate(tokens: Tokens, beta: float) -> torch.Tensor:
    """g_t = σ(β·Δ_t), shape ``(B, T)``, in (0, 1); exactly ½ where teacher and student agree."""
    return torch.sigmoid(beta * tokens.gap)
