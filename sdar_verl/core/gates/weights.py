"""From a gate to the weight of a token: the gate, or what it is above a baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sdar_verl.core.gates.base import GATES
from sdar_verl.core.tokens import Tokens

if TYPE_CHECKING:
    from sdar_verl.core.config import DistillationConfig

BASELINES = ("none", "half", "mean")


def gate_weights(
    tokens: Tokens, config: DistillationConfig, gate_mean: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gate g_t and weight w_t = g_t − b, both ``(B, T)`` and without gradient.

    b is 0 (``gate_baseline=none``, paper and official code), ½ (``half``) or the step's mean gate (``mean``). On-policy
    E[∇log π] = 0, so b leaves the expected gradient of the sampled-token term alone and changes its noise: for small
    gaps g − ½ ≈ β·Δ/4 is smaller than g, for very large ones the noise may grow. Off-policy the constant part of g
    pulls towards the sampled tokens, whatever they were; a baseline removes that pull.

    Args:
        tokens: of one micro-batch.
        config: gate and baseline.
        gate_mean: mean gate over all response tokens of the step, from `mean_gate`; needed for ``mean``. It is one
            number for the whole step, so that the gradient does not depend on micro-batches.

    Raises:
        ValueError: `gate_mean` is missing.
    """
    gate = GATES.get(config.gate)(tokens, config).detach()
    if config.gate_baseline == "none":
        return gate, gate
    if config.gate_baseline == "half":
        return gate, gate - 0.5
    if gate_mean is None:
        raise ValueError("gate_baseline=mean needs gate_mean, the mean gate over all response tokens of the step")
    return gate, gate - gate_mean


@torch.no_grad()
def mean_gate(tokens: Tokens, config: DistillationConfig) -> float:
    """Mean of g_t over the response tokens; raises `ValueError` if there is none."""
    if not tokens.mask.any():
        raise ValueError("no response token, so no mean gate")
    return float(GATES.get(config.gate)(tokens, config)[tokens.mask].double().mean())
