"""RLSD: the reward says in which direction a token goes, the teacher how far (arXiv 2604.03128)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sdar_verl.core.advantages.base import ADVANTAGES
from sdar_verl.core.tokens import Tokens

if TYPE_CHECKING:
    from sdar_verl.core.config import DistillationConfig


@ADVANTAGES.register("evidence")
def evidence(advantages: torch.Tensor, tokens: Tokens, config: DistillationConfig, coef: float) -> torch.Tensor:
    """Â_t = A·[(1 − λ) + λ·clip(exp(sign(A)·δ_t), 1 − ε_w, 1 + ε_w)], ε_w = ``evidence_clip`` < 1.

    Never changes a sign: of a winning episode the tokens that the teacher prefers count more, of a losing one those
    that it rejects.
    """
    evidence = torch.exp((advantages.sign() * tokens.gap).clamp(max=1.0))  # e > 1 + ε_w: no overflow, same clip
    weight = evidence.clamp(1 - config.evidence_clip, 1 + config.evidence_clip)
    return advantages * ((1 - coef) + coef * weight)
