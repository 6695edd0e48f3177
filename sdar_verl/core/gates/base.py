"""The seat of a gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from sdar_verl.core.registry import Registry
from sdar_verl.core.tokens import Tokens

if TYPE_CHECKING:
    from sdar_verl.core.config import DistillationConfig


class Gate(Protocol):
    """``gate(tokens, config) -> g`` of shape ``(B, T)``; the caller detaches the result and applies the mask."""

    def __call__(self, tokens: Tokens, config: DistillationConfig) -> torch.Tensor: ...


GATES: Registry[Gate] = Registry("gate")
