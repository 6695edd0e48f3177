"""The k3 estimate of the reverse KL from sampled tokens (Schulman's estimator), as Skill-SD uses it."""

from __future__ import annotations

import torch

from sdar_verl.core.divergences.base import DIVERGENCES
from sdar_verl.core.tokens import MAX_LOG_RATIO, Tokens


@DIVERGENCES.register("k3")
def k3(tokens: Tokens) -> torch.Tensor:
    """d_t = e^{−ℓ} − 1 + ℓ with ℓ = log π_θ(y_t | s_t) − sg[log π_T(y_t | s_t⁺)], shape ``(B, T)``, nats, ≥ 0.

    For y_t sampled from π_θ its mean is KL(π_θ ‖ π_T). Its gradient is (1 − e^{−ℓ})·∇log π_θ: towards the sampled token
    where the teacher finds it likelier than the student, away from it otherwise. On its own that is *not* the gradient
    of the reverse KL; with ``importance_ratio=attached`` it is (arXiv 2604.10674). −ℓ is cut at 20 as there.
    """
    log_ratio = tokens.student - tokens.teacher
    return torch.exp((-log_ratio).clamp(max=MAX_LOG_RATIO)) - 1 + log_ratio
