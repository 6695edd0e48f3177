"""The importance ratio of the distillation term: tokens were sampled by an older policy than the one that learns."""

from __future__ import annotations

import torch

from sdar_verl.core.tokens import MAX_LOG_RATIO, Tokens

RATIOS = ("none", "detached", "attached")


def importance_ratio(tokens: Tokens, kind: str, clip: float | None) -> torch.Tensor | float:
    """ρ_t = min(exp(log π_θ(y_t | s_t) − log π_old(y_t | s_t)), clip), shape ``(B, T)``; 1 for ``none``.

    Args:
        tokens: needs `Tokens.old`, the log-probabilities before the step's first update.
        kind: ``none`` (paper and official SDAR: up to about 25 updates on one batch go uncorrected), ``detached`` (a
            weight, as SDPO has it) or ``attached`` (gradient flows through ρ as well, as Skill-SD has it: then
            ρ·k3 has the gradient of the reverse KL; for k3 alone).
        clip: largest ρ, above 0; None for none. The exponent is cut at ±20 nats in any case.

    Raises:
        ValueError: there are no old log-probabilities.
    """
    if kind == "none":
        return 1.0
    if tokens.old is None:
        raise ValueError("the importance ratio needs old_log_probs")
    log_ratio = (tokens.student - tokens.old).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = log_ratio.exp() if clip is None else log_ratio.exp().clamp(max=clip)
    return ratio.detach() if kind == "detached" else ratio
