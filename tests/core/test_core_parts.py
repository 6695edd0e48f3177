"""Gates, divergences, ratios and advantages against plain NumPy, and against sums over a whole vocabulary."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdar_verl.core import ADVANTAGES, GATES, DistillationConfig, distillation_loss
from sdar_verl.core.gap import as_tokens
from sdar_verl.core.gates import mean_gate

ROWS, COLUMNS = 4, 6
SETTINGS = settings(max_examples=40)
SEEDS = st.integers(0, 2**32 - 1)


def case(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    student, teacher, old = (-np.abs(rng.normal(size=(ROWS, COLUMNS))) * scale for _ in range(3))
    entropy = np.abs(rng.normal(size=(ROWS, COLUMNS)))
    mask = (rng.random((ROWS, COLUMNS)) < 0.7).astype(np.int64)
    mask[0, 0] = 1
    return student, teacher, old, entropy, mask


def gate_of(name, student, teacher, entropy, beta, threshold):
    gap = teacher - student
    logit = {
        "gap": beta * gap,
        "entropy": beta * entropy,
        "soft_or": beta * (entropy + gap - entropy * gap),
    }
    if name in logit:
        return 1 / (1 + np.exp(-logit[name]))
    return (gap > threshold).astype(float) if name == "hard" else np.ones_like(gap)


def run(config, student, teacher, old, entropy, mask, dtype=torch.float64, **kwargs):
    leaf = torch.tensor(student, dtype=dtype, requires_grad=True)
    output = distillation_loss(
        leaf,
        torch.tensor(teacher, dtype=dtype),
        torch.tensor(mask),
        config,
        coef=1.0,
        entropy=torch.tensor(entropy, dtype=dtype),
        old_log_probs=torch.tensor(old, dtype=dtype),
        **kwargs,
    )
    output.loss.backward()
    return output, leaf.grad.numpy()


@SETTINGS
@given(
    SEEDS,
    st.sampled_from(sorted(GATES.names())),
    st.sampled_from(["none", "half", "mean"]),
    st.sampled_from(["sampled_token", "k3"]),
    st.sampled_from([("none", None), ("detached", None), ("detached", 1.2), ("attached", None), ("attached", 1.2)]),
    st.sampled_from([torch.float64, torch.float32]),
)
def test_every_combination_equals_the_oracle(seed, gate_name, baseline, divergence, ratio, dtype):
    if (gate_name == "none" or divergence == "k3") and baseline != "none":
        return
    if ratio[0] == "attached" and divergence != "k3":
        return
    student, teacher, old, entropy, mask = case(seed)
    config = DistillationConfig(
        gate=gate_name, beta=2.0, gate_threshold=0.3, gate_baseline=baseline, divergence=divergence,
        importance_ratio=ratio[0], ratio_clip=ratio[1],
    )  # fmt: skip
    gate = gate_of(gate_name, student, teacher, entropy, 2.0, 0.3)
    mean = gate[mask == 1].mean()
    output, gradient = run(config, student, teacher, old, entropy, mask, dtype, gate_mean=float(mean))

    weight = gate - {"none": 0.0, "half": 0.5, "mean": mean}[baseline]
    gap = teacher - student
    value, slope = {
        "sampled_token": (gap, -np.ones_like(gap)),
        "k3": (np.exp(gap) - 1 - gap, 1 - np.exp(gap)),
    }[divergence]
    rho = np.exp(student - old) if ratio[0] != "none" else np.ones_like(gap)
    cut = rho > ratio[1] if ratio[1] else np.zeros_like(mask, bool)
    rho = np.minimum(rho, ratio[1]) if ratio[1] else rho
    rho_slope = np.where(cut, 0.0, rho) if ratio[0] == "attached" else np.zeros_like(gap)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    expected = (weight * rho * value * mask).sum() / mask.sum()
    np.testing.assert_allclose(output.loss.item(), expected, rtol=tolerance, atol=tolerance)
    per_token = weight * (rho * slope + rho_slope * value) * mask / mask.sum()
    np.testing.assert_allclose(gradient, per_token, rtol=tolerance, atol=tolerance)


@SETTINGS
@given(SEEDS, st.sampled_from(["gap", "soft_or", "hard"]))
def test_the_mean_gate_makes_the_weights_sum_to_zero(seed, gate):
    student, teacher, old, entropy, mask = case(seed)
    config = DistillationConfig(gate=gate, gate_baseline="mean")
    tokens = as_tokens(*(torch.tensor(x) for x in (student, teacher, mask)), entropy=torch.tensor(entropy))
    _, gradient = run(config, student, teacher, old, entropy, mask, gate_mean=mean_gate(tokens, config))
    assert abs(gradient.sum()) < 1e-12


def test_a_part_that_lacks_what_it_needs_raises():
    x, mask = torch.zeros(1, 2), torch.ones(1, 2)
    with pytest.raises(ValueError, match="gate=soft_or.*need entropy"):
        distillation_loss(x, x, mask, DistillationConfig(gate="soft_or"), coef=1.0)
    with pytest.raises(ValueError, match="importance_ratio=detached need old"):
        distillation_loss(x, x, mask, DistillationConfig(importance_ratio="detached"), coef=1.0)
    with pytest.raises(ValueError, match="gate_baseline=mean needs gate_mean"):
        distillation_loss(x, x, mask, DistillationConfig(gate_baseline="mean"), coef=1.0)
    with pytest.raises(ValueError, match="entropy has 1 values on response tokens that are not finite"):
        distillation_loss(
            x, x, mask, DistillationConfig(gate="entropy"), coef=1.0, entropy=torch.tensor([[0.0, torch.nan]])
        )


@pytest.mark.parametrize("values", [{"gate": "entropy"}, {"divergence": "k3", "importance_ratio": "attached"}])
def test_masked_positions_may_hold_anything(values):
    student, teacher, old, entropy, mask = case(1)
    config = DistillationConfig(**values)
    _, clean = run(config, student, teacher, old, entropy, mask)
    poisoned = [np.where(mask == 1, x, np.nan) for x in (student, teacher, old, entropy)]
    _, gradient = run(config, *poisoned, mask)
    np.testing.assert_array_equal(gradient, clean)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 1.3])
def test_importance_weighted_k3_has_the_gradient_of_the_reverse_kl(temperature):
    """Every token of a vocabulary, weighed by the sampling policy, gives KL(student || teacher) and its gradient."""
    torch.manual_seed(0)
    vocabulary = 23
    logits = torch.randn(vocabulary, dtype=torch.float64, requires_grad=True)
    teacher, old = (torch.log_softmax(torch.randn(vocabulary, dtype=torch.float64) / temperature, -1) for _ in range(2))
    student = torch.log_softmax(logits / temperature, -1)
    config = DistillationConfig(gate="none", divergence="k3", importance_ratio="attached")
    total = 0.0
    for token in range(vocabulary):
        one = [x[token].reshape(1, 1) for x in (student, teacher)]
        term = distillation_loss(
            *one, torch.ones(1, 1), config, coef=1.0, old_log_probs=old[token].detach().reshape(1, 1)
        ).loss
        total = total + old[token].exp() * term
    exact = (student.exp() * (student - teacher)).sum()
    torch.testing.assert_close(total, exact, rtol=1e-10, atol=1e-12)
    (found,) = torch.autograd.grad(total, logits, retain_graph=True)
    (wanted,) = torch.autograd.grad(exact, logits)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-12)


def test_k3_does_not_overflow():
    student = torch.tensor([[-500.0]], requires_grad=True)
    config = DistillationConfig(gate="none", divergence="k3")
    loss = distillation_loss(student, torch.zeros(1, 1), torch.ones(1, 1), config, coef=1.0).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


@SETTINGS
@given(SEEDS, st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.1, 0.2, 0.9]))
def test_evidence_equals_the_formula_and_keeps_every_sign(seed, coef, clip):
    student, teacher, _, _, mask = case(seed, scale=3.0)
    rng = np.random.default_rng(seed)
    advantages = np.repeat(rng.normal(size=(ROWS, 1)), COLUMNS, axis=1) * (rng.random((ROWS, 1)) < 0.8)
    tokens = as_tokens(*(torch.tensor(x) for x in (student, teacher, mask)))
    config = DistillationConfig(place="advantage", advantage="evidence", gate="none", coef=coef, evidence_clip=clip)
    shaped = ADVANTAGES.get("evidence")(torch.tensor(advantages), tokens, config, coef).numpy()
    gap = np.where(mask == 1, teacher - student, 0.0)
    weight = np.clip(np.exp(np.sign(advantages) * gap), 1 - clip, 1 + clip)
    np.testing.assert_allclose(shaped, advantages * ((1 - coef) + coef * weight), rtol=1e-12)
    assert (np.sign(shaped) == np.sign(advantages)).all()


def test_reverse_kl_pays_the_gap():
    tokens = as_tokens(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-0.5, -4.0]]), torch.tensor([[1, 1]]))
    config = DistillationConfig(place="advantage", advantage="reverse_kl", gate="none")
    shaped = ADVANTAGES.get("reverse_kl")(torch.tensor([[1.0, 1.0]]), tokens, config, 0.1)
    torch.testing.assert_close(shaped, torch.tensor([[1.05, 0.8]]))


@pytest.mark.parametrize("name", ADVANTAGES.names())
def test_equal_contexts_leave_the_advantage_as_it_is(name):
    student, _, _, _, mask = case(2)
    tokens = as_tokens(*(torch.tensor(x) for x in (student, student, mask)))
    advantages = torch.randn(ROWS, COLUMNS, dtype=torch.float64)
    config = DistillationConfig(place="advantage", advantage=name, gate="none", coef=0.5)
    assert torch.equal(ADVANTAGES.get(name)(advantages, tokens, config, 0.5), advantages)
