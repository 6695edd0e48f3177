"""A gate that opens where the student is unsure, whatever the teacher says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sdar_verl.core.gates.base import GATES
from sdar_verl.core.tokens import Tokens

if TYPE_CHECKING:
    from sdar_verl.core.config import DistillationConfig


@GATES.register("entropy", needs=("entropy",))
def entropy_gate(tokens: Tokens, config: DistillationConfig) -> torch.Tensor:
    """g_t = σ(β·h_t), shape ``(B, T)``, in [½, 1): h_t ≥ 0 is the student's entropy in nats (paper's ablation)."""
    return torch.sigmoid(config.beta * tokens.entropy)
