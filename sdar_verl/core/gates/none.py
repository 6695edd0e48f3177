"""No gate: every response token counts the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sdar_verl.core.gates.base import GATES
from sdar_verl.core.tokens import Tokens

if TYPE_CHECKING:
    from sdar_verl.core.config import DistillationConfig


@GATES.register("none")
def no_gate(tokens: Tokens, config: DistillationConfig) -> torch.Tensor:
    """g_t = 1, shape ``(B, T)``; β has no meaning here."""
    return torch.ones_like(tokens.gap)
