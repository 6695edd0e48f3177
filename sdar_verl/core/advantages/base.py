"""The seat of a part that puts the teacher into the advantage instead of the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from sdar_verl.core.registry import Registry
from sdar_verl.core.tokens import Tokens

if TYPE_CHECKING:
    from sdar_verl.core.config import DistillationConfig


class Advantage(Protocol):
    """``advantage(advantages, tokens, config, coef) -> advantages``, all ``(B, T)``, once a step before its updates.

    `tokens.student` holds log π_old there, so the gap is δ_t = log π_T(y_t | s_t⁺) − log π_old(y_t | s_t).
    """

    def __call__(
        self, advantages: torch.Tensor, tokens: Tokens, config: DistillationConfig, coef: float
    ) -> torch.Tensor: ...


ADVANTAGES: Registry[Advantage] = Registry("advantage")
