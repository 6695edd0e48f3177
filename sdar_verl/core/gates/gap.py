"""SDAR's gate: open where the privileged teacher agrees with the sampled token, closed where it disagrees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sdar_verl.core.gates.base import GATES
from sdar_verl.core.tokens import Tokens

if TYPE_CHECKING:
    from sdar_verl.core.config import DistillationConfig


@GATES.register("gap")
def gap_gate(tokens: Tokens, config: DistillationConfig) -> torch.Tensor:
    """g_t = σ(β·Δ_t), shape ``(B, T)``, in (0, 1); exactly ½ where teacher and student agree."""
    return torch.sigmoid(config.beta * tokens.gap)
