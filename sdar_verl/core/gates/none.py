"""No gate: every response token counts the same."""

from __future__ import annotations

import torch

from sdar_verl.core.gates.base import GATES
from sdar_verl.core.tokens import Tokens


@GATES.register("none")
def no_gate(tokens: Tokens, beta: float) -> torch.Tensor:
    """g_t = 1, shape ``(B, T)``; `beta` has no meaning here."""
    return torch.ones_like(tokens.gap)
