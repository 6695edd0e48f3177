"""Divergences between distributions against dense NumPy, at their ends, and what they must never do."""

import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdar_verl.core.distributions import distribution_divergence

SETTINGS = settings(max_examples=60)
CASES = {"seed": st.integers(0, 2**32 - 1), "alpha": st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0])}


def logits(seed, rows=5, vocabulary=11, scale=2.0):
    rng = np.random.default_rng(seed)
    return (scale * rng.normal(size=(rows, vocabulary)) for _ in range(2))


def probabilities(values):
    shifted = np.exp(values - values.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def kl(p, q):
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def divergence(s, t, alpha):
    if alpha == 0:
        return kl(t, s)
    if alpha == 1:
        return kl(s, t)
    middle = (1 - alpha) * s + alpha * t
    return (1 - alpha) * kl(s, middle) + alpha * kl(t, middle)


def restricted(s, t, k, support, tail):
    """Both distributions on the chosen tokens, with the rest of the mass or without it."""
    best = {"student": [s], "teacher": [t], "union": [s, t]}[support]
    ids = sorted({int(i) for values in best for i in np.argsort(-values)[:k]})
    out = []
    for values in (s, t):
        kept = values[ids]
        if tail == "renormalise" or len(ids) == len(values):
            out.append(kept / kept.sum())
        else:
            out.append(np.append(kept, 1 - kept.sum()))
    return out


def run(student, teacher, alpha, **options):
    leaf = torch.tensor(student, dtype=torch.float64, requires_grad=True)
    found = distribution_divergence(leaf, torch.tensor(teacher, dtype=torch.float64), alpha, **options)
    found.sum().backward()
    return found.detach().numpy(), leaf.grad.numpy()


@SETTINGS
@given(**CASES)
def test_the_whole_vocabulary_equals_the_oracle(seed, alpha):
    student, teacher = logits(seed)
    s, t = probabilities(student), probabilities(teacher)
    found, gradient = run(student, teacher, alpha, chunk=2)
    np.testing.assert_allclose(found, [divergence(a, b, alpha) for a, b in zip(s, t, strict=True)], atol=1e-9)
    single = [torch.tensor(values, dtype=torch.float32) for values in (student, teacher)]
    np.testing.assert_allclose(distribution_divergence(*single, alpha).numpy(), found, rtol=1e-6, atol=1e-6)
    step = 1e-4
    for column in range(3):
        up, down = student.copy(), student.copy()
        up[:, column] += step
        down[:, column] -= step
        slope = [
            (divergence(a, c, alpha) - divergence(b, c, alpha)) / (2 * step)
            for a, b, c in zip(probabilities(up), probabilities(down), t, strict=True)
        ]
        np.testing.assert_allclose(gradient[:, column], slope, atol=2e-6)


@SETTINGS
@given(
    k=st.integers(1, 11),
    support=st.sampled_from(["student", "teacher", "union"]),
    tail=st.sampled_from(["bucket", "renormalise"]),
    **CASES,
)
def test_the_likeliest_tokens_equal_the_oracle(seed, alpha, k, support, tail):
    student, teacher = logits(seed)
    pairs = zip(probabilities(student), probabilities(teacher), strict=True)
    expected = [divergence(*restricted(s, t, k, support, tail), alpha) for s, t in pairs]
    found, gradient = run(student, teacher, alpha, topk=k, support=support, tail=tail)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.isfinite(gradient).all()
    single = [torch.tensor(values, dtype=torch.float32) for values in (student, teacher)]
    float32 = distribution_divergence(*single, alpha, topk=k, support=support, tail=tail)
    np.testing.assert_allclose(float32.numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("options", [{}, {"topk": 3}, {"topk": 3, "support": "union", "tail": "renormalise"}])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_teacher_that_agrees_gives_nothing(alpha, options):
    student, _ = logits(3)
    found, gradient = run(student, student, alpha, **options)
    np.testing.assert_allclose(found, 0.0, atol=1e-7)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-7)


@pytest.mark.parametrize(("small", "end"), [(1e-6, 0.0), (1 - 1e-6, 1.0)])
def test_between_the_ends_it_goes_to_the_end_over_alpha_times_one_minus_alpha(small, end):
    student, teacher = logits(4)
    near, at = run(student, teacher, small)[0], run(student, teacher, end)[0]
    np.testing.assert_allclose(near / (small * (1 - small)), at, rtol=2e-2)


def test_reverse_kl_equals_the_expected_gradient_of_the_sampled_token_term():
    """Summed over the vocabulary under the student, gap times minus log-probability is the same gradient."""
    student, teacher = logits(5, rows=1)
    _, gradient = run(student, teacher, 1.0)
    leaf = torch.tensor(student, requires_grad=True)
    log_s, log_t = leaf.log_softmax(-1), torch.tensor(teacher).log_softmax(-1)
    (log_s.detach().exp() * (log_t - log_s.detach()) * -log_s).sum().backward()
    np.testing.assert_allclose(gradient, leaf.grad.numpy(), atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_tokens_that_both_exclude_count_nothing(alpha):
    student, teacher = logits(6)
    full, _ = run(student, teacher, alpha)
    pad = np.full((5, 2), -np.inf)
    found, gradient = run(np.hstack([student, pad]), np.hstack([teacher, pad]), alpha)
    np.testing.assert_allclose(found, full, atol=1e-6)
    assert np.isfinite(gradient).all() and (gradient[:, -2:] == 0).all()


def test_no_rows_and_wrong_use():
    empty = torch.zeros(0, 4, requires_grad=True)
    assert distribution_divergence(empty, torch.zeros(0, 4), 1.0).shape == (0,)
    with pytest.raises(ValueError, match="same vocabulary"):
        distribution_divergence(torch.zeros(2, 4), torch.zeros(2, 5), 1.0)
    with pytest.raises(ValueError, match="alpha must lie"):
        distribution_divergence(torch.zeros(2, 4), torch.zeros(2, 4), 1.5)
    with pytest.raises(ValueError, match="vocabulary of 4, got 5"):
        distribution_divergence(torch.zeros(2, 4), torch.zeros(2, 4), 1.0, topk=5)
    with pytest.raises(ValueError, match="known supports"):
        distribution_divergence(torch.zeros(2, 4), torch.zeros(2, 4), 1.0, support="both")


@SETTINGS
@given(seed=CASES["seed"], topk=st.sampled_from([None, 3]), chunk=st.integers(1, 8))
def test_rows_named_are_compared_in_place(seed, topk, chunk):
    """As if they had been copied out first; rows that are not named get no gradient."""
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(7, 9)), rng.normal(size=(7, 9))
    at = np.flatnonzero(rng.random(7) < 0.5)
    leaf = torch.tensor(student, requires_grad=True)
    found = distribution_divergence(leaf, torch.tensor(teacher[at]), 0.5, at=torch.tensor(at), topk=topk, chunk=chunk)
    found.sum().backward()
    expected, gradient = run(student[at], teacher[at], 0.5, topk=topk) if len(at) else ([], np.zeros((0, 9)))
    np.testing.assert_allclose(found.detach(), expected, atol=1e-12)
    np.testing.assert_allclose(leaf.grad[at], gradient, atol=1e-12)
    others = np.setdiff1d(np.arange(7), at)
    assert (leaf.grad[others] == 0).all()


@pytest.mark.parametrize("at", [[1, 0], [0, 0], [0, 7], [-1, 0]])
def test_rows_must_be_named_in_order(at):
    with pytest.raises(ValueError, match="ascending"):
        distribution_divergence(torch.zeros(7, 3), torch.zeros(2, 3), 1.0, at=torch.tensor(at))


@pytest.mark.parametrize(("topk", "kept"), [(3, False), (None, True)])
def test_topk_does_not_keep_the_teachers_logits(topk, kept):
    """They are as large as the student's; only `full` needs them again in the backward pass."""
    memory = np.random.default_rng(0).normal(size=(6, 50))
    alive = weakref.ref(memory)
    student = torch.zeros(6, 50, dtype=torch.float64, requires_grad=True)
    teacher = torch.from_numpy(memory)
    found = distribution_divergence(student, teacher, 0.5, topk=topk, chunk=4)
    del memory, teacher
    gc.collect()
    assert (alive() is not None) == kept
    found.sum().backward()
    assert student.grad.abs().sum() > 0
