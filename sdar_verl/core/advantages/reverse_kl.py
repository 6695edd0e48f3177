"""On-policy distillation as an advantage: every token is paid what the teacher thinks of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sdar_verl.core.advantages.base import ADVANTAGES
from sdar_verl.core.tokens import Tokens

if TYPE_CHECKING:
    from sdar_verl.core.config import DistillationConfig


@ADVANTAGES.register("reverse_kl")
def reverse_kl(advantages: torch.Tensor, tokens: Tokens, config: DistillationConfig, coef: float) -> torch.Tensor:
    """Â_t = A + λ·δ_t: beside the reward's, the policy gradient of −λ·KL(π_θ ‖ π_T) at the sampled tokens.

    With ``rl: false`` A is 0 and this is plain on-policy distillation (OPD).
    """
    return advantages + coef * tokens.gap
