"""The sampled-token term of SDAR: reverse-KL form, one log-probability per token, no full vocabulary."""

from __future__ import annotations

import torch

from sdar_verl.core.divergences.base import DIVERGENCES
from sdar_verl.core.tokens import Tokens


@DIVERGENCES.register("sampled_token")
def sampled_token(tokens: Tokens) -> torch.Tensor:
    """d_t = sg[log π_T(y_t | s_t⁺)] − log π_θ(y_t | s_t), shape ``(B, T)``, in nats.

    Sign: this is *minimised*. Its value is the gap, its gradient is −∇log π_θ(y_t | s_t), so a descent step makes the
    sampled token more likely, by as much as the gate lets through. A negative value is normal: it means that the
    teacher finds the sampled tokens less likely than the student does, on average.
    """
    return tokens.teacher - tokens.student
