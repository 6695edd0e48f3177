"""The seat of a gate."""

from __future__ import annotations

from typing import Protocol

import torch

from sdar_verl.core.registry import Registry
from sdar_verl.core.tokens import Tokens


class Gate(Protocol):
    """``gate(tokens, beta) -> g`` of shape ``(B, T)``; the caller detaches the result and applies the mask."""

    def __call__(self, tokens: Tokens, beta: float) -> torch.Tensor: ...


GATES: Registry[Gate] = Registry("gate")
