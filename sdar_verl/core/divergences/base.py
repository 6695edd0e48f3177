"""The seat of a divergence."""

from __future__ import annotations

from typing import Protocol

import torch

from sdar_verl.core.registry import Registry
from sdar_verl.core.tokens import Tokens


class Divergence(Protocol):
    """``divergence(tokens) -> d`` of shape ``(B, T)`` in nats, with gradient to the student only."""

    def __call__(self, tokens: Tokens) -> torch.Tensor: ...


DIVERGENCES: Registry[Divergence] = Registry("divergence")
