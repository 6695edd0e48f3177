"""The CPU engine's log-probabilities are verl's."""

import torch
from verl.utils.torch_functional import logprobs_from_logits

from sdar_verl.compat.cpu.engine import log_probs_from_logits


def test_log_probs_and_their_gradient_are_those_of_verl():
    torch.manual_seed(0)
    logits = 30 * torch.randn(50, 17, dtype=torch.float64)
    labels, weights = torch.randint(0, 17, (50,)), torch.randn(50, dtype=torch.float64)
    found = []
    for function in (log_probs_from_logits, logprobs_from_logits):
        leaf = logits.clone().requires_grad_()
        values = function(logits=leaf, labels=labels)
        (values * weights).sum().backward()
        found.append((values.detach(), leaf.grad))
    torch.testing.assert_close(found[0], found[1])
    assert found[0][0].shape == labels.shape
