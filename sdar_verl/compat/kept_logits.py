"""Logits that are still there when the backward pass needs them again.

FlashAttention's cross-entropy writes its gradient over the logits, where verl allows it: whenever no entropy is asked
for. A divergence of whole distributions is worked out again from them in the backward pass, after that, and nothing
would tell that they are gradients by then.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from verl.workers.engine.fsdp import transformer_impl

from sdar_verl.compat.replaced import replaced


def logits_kept() -> AbstractContextManager[None]:
    """verl's FSDP engines take log-probabilities without giving up the logits meanwhile."""
    stock = transformer_impl.logprobs_from_logits

    def out_of_place(logits: torch.Tensor, labels: torch.Tensor, **_: object) -> torch.Tensor:
        return stock(logits, labels, inplace_backward=False)

    return replaced(transformer_impl, "logprobs_from_logits", out_of_place)
