"""What must hold for every method that ships, with its own configuration, at the loss hook on verl's own batches."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from test_loss import actor, call, make_rows, nested
from verl.workers.utils.losses import ppo_loss

from sdar_verl import methods
from sdar_verl.compat.loss import DIVERGENCE, TEACHER_FIELD, TEACHER_MASK, sdar_loss
from sdar_verl.core import ADVANTAGES, DistillationConfig
from sdar_verl.core.distributions import distribution_divergence
from sdar_verl.core.gap import as_tokens

VOCABULARY = 150


def term_of(method):
    values = OmegaConf.to_container(methods.compose(method).sdar.distillation)
    return DistillationConfig.from_mapping(values) if values.pop("enabled") else None


TERMS = {name: term for name in methods.names() if (term := term_of(name)) is not None}
IN_LOSS = sorted(name for name, term in TERMS.items() if term.place == "loss")
IN_ADVANTAGE = sorted(set(TERMS) - set(IN_LOSS))


def test_six_methods_are_in_the_loss_and_two_in_the_advantage():
    assert IN_LOSS == ["grpo_opsd", "opsd", "sdar", "sdft", "sdpo", "skill_sd"] and IN_ADVANTAGE == ["opd", "rlsd"]


class Distributions:
    """Divergences of made-up logits at every position, as the teacher's forward pass hands them over."""

    def __init__(self, rows, term, same):
        generator = torch.Generator().manual_seed(1)
        lengths = [len(row["prompts"]) + len(row["responses"]) for row in rows]
        self.student = torch.randn(sum(lengths), VOCABULARY, generator=generator).requires_grad_()
        teacher = self.student.detach() if same else torch.randn(sum(lengths), VOCABULARY, generator=generator)
        found = distribution_divergence(
            self.student, teacher, term.alpha, topk=term.topk if term.divergence == "topk" else None,
            support=term.topk_support, tail=term.topk_tail,
        )  # fmt: skip
        self.found = nested(list(found.split(lengths)))


def run(name, rows, coef, same=False):
    """The hook with a method's term; returns loss, metrics, and gradients by log-probability and by logits."""
    term = TERMS[name]
    distributions = Distributions(rows, term, same) if "distribution" in term.needs else None

    def hook(config, model_output, data):
        if distributions is not None:
            model_output[DIVERGENCE] = distributions.found
        return sdar_loss(config, model_output, data, distillation=term)

    value, metrics, slopes = call(rows, hook, actor(), coef=coef)
    return value, metrics, slopes, None if distributions is None else distributions.student.grad


def resolved(metrics, name):
    return metrics[f"{name}#sum"].aggregate() / metrics[f"{name}#count"].aggregate()


@pytest.mark.parametrize("name", IN_LOSS)
def test_a_teacher_that_is_the_student_teaches_nothing(name):
    """The divergence is 0; so is its gradient, except for the sampled token's, which vanishes in expectation alone."""
    rows = make_rows()
    for row in rows:
        row[TEACHER_FIELD] = row["student"].clone()
    _, metrics, slopes, logits = run(name, rows, coef=0.5, same=True)
    assert resolved(metrics, "sdar/loss") == pytest.approx(0.0, abs=1e-6)
    assert resolved(metrics, "sdar/gap_mean") == 0.0
    _, _, without, _ = run(name, rows, coef=0.0, same=True)
    if TERMS[name].divergence == "sampled_token":
        gate = 0.5 if TERMS[name].gate == "gap" else 1.0
        count = sum(int(row["response_mask"].sum()) for row in rows)
        for found, before, row in zip(slopes, without, rows, strict=True):
            np.testing.assert_allclose(found - before, -0.5 * gate * row["response_mask"] / count, atol=1e-6)
        return
    for found, before in zip(slopes, without, strict=True):
        torch.testing.assert_close(found, before, atol=1e-6, rtol=0)
    if logits is not None:
        assert logits.abs().max() < 1e-6


@pytest.mark.parametrize("name", IN_LOSS)
def test_a_teacher_that_is_not_the_student_does_teach(name):
    rows = make_rows()
    _, _, slopes, logits = run(name, rows, coef=0.5)
    _, _, without, _ = run(name, rows, coef=0.0)
    change = max(float((a - b).abs().max()) for a, b in zip(slopes, without, strict=True))
    assert change > 1e-4 or (logits is not None and logits.abs().max() > 1e-4)


@pytest.mark.parametrize("name", [name for name in IN_LOSS if TERMS[name].rl])
def test_with_lambda_zero_every_method_is_grpo_bit_for_bit(name):
    rows = make_rows()
    stock, _, stock_slopes = call(rows, ppo_loss, actor())
    value, _, slopes, logits = run(name, rows, coef=0.0)
    assert value == stock
    assert all(torch.equal(found, expected) for found, expected in zip(slopes, stock_slopes, strict=True))
    assert logits is None or logits.abs().max() == 0


@pytest.mark.parametrize("name", IN_LOSS)
def test_rows_without_context_are_not_distilled(name):
    """SDPO's masked rows: the reward's part of them stays, the teacher's part goes."""
    rows = make_rows()
    for row in rows[1:]:
        row[TEACHER_MASK] = torch.zeros_like(row["response_mask"])
        row[TEACHER_FIELD] = torch.full_like(row[TEACHER_FIELD], torch.nan)
    _, metrics, slopes, logits = run(name, rows, coef=0.5)
    _, _, without, _ = run(name, rows, coef=0.0)
    assert metrics["sdar/loss#count"].aggregate() == int(rows[0]["response_mask"].sum())
    assert all(torch.equal(a, b) for a, b in zip(slopes[1:], without[1:], strict=True))
    if logits is None:
        assert not torch.equal(slopes[0], without[0])
        return
    own = len(rows[0]["prompts"]) + len(rows[0]["responses"])
    assert logits[:own].abs().max() > 0 and logits[own:].abs().max() == 0


@pytest.mark.parametrize("name", IN_LOSS)
def test_a_step_in_which_no_row_has_a_context_keeps_the_graph(name):
    rows = make_rows()
    for row in rows:
        row[TEACHER_MASK] = torch.zeros_like(row["response_mask"])
    value, metrics, slopes, _ = run(name, rows, coef=0.5)
    assert np.isfinite(value) and all(torch.isfinite(slope).all() for slope in slopes)
    assert metrics["sdar/loss#count"].aggregate() == 0


@pytest.mark.parametrize("name", IN_ADVANTAGE)
def test_advantages_of_a_teacher_that_is_the_student_are_the_rewards(name):
    rng = np.random.default_rng(0)
    log_probs, mask = torch.tensor(-rng.random((3, 5))), torch.tensor(rng.integers(0, 2, (3, 5)))
    own = torch.tensor(rng.normal(size=(3, 1))) * mask
    tokens = as_tokens(log_probs, log_probs, mask)
    found = ADVANTAGES.get(TERMS[name].advantage)(own, tokens, TERMS[name], 0.5)
    torch.testing.assert_close(found * mask, own)
