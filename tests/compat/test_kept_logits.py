"""Whole distributions are compared on logits that no other gradient was written over."""

import torch
from verl.workers.engine.fsdp import transformer_impl

from sdar_verl.compat.kept_logits import logits_kept
from sdar_verl.compat.replaced import replaced
from sdar_verl.core.distributions import distribution_divergence


class OverLogits(torch.autograd.Function):
    """As FlashAttention's cross-entropy: its gradient is written over the logits, and nobody is told."""

    @staticmethod
    def forward(ctx, logits, labels, inplace_backward):
        ctx.save_for_backward(logits, labels)
        ctx.inplace = inplace_backward
        return logits.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)

    @staticmethod
    def backward(ctx, gradient):
        logits, labels = ctx.saved_tensors
        found = -logits.softmax(-1)
        found[torch.arange(len(labels)), labels] += 1
        found *= gradient.unsqueeze(-1)
        if ctx.inplace:
            logits.data.copy_(found)
        return found, None, None


def gradient():
    """Of divergence and log-probabilities together, formed in verl's order."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(4, 6, generator=generator).requires_grad_()
    teacher, labels = torch.randn(4, 6, generator=generator), torch.tensor([0, 5, 2, 2])
    logits = weights * 1.0  # not a leaf, as a model's
    divergence = distribution_divergence(logits, teacher, 0.0)
    log_probs = transformer_impl.logprobs_from_logits(logits=logits, labels=labels)
    (divergence.sum() + 0.1 * log_probs.sum()).backward()
    return weights.grad


def test_a_gradient_over_the_logits_would_spoil_the_divergence():
    """And is not written while they are kept."""
    honest = gradient()

    def stock(logits, labels, inplace_backward=True):
        return OverLogits.apply(logits, labels, inplace_backward)

    with replaced(transformer_impl, "logprobs_from_logits", stock):
        assert (gradient() - honest).abs().max() > 0.1, "nothing is written over: this test could not fail"
        with logits_kept():
            torch.testing.assert_close(gradient(), honest)
        assert transformer_impl.logprobs_from_logits is stock
