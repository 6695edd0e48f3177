"""The loss hook on verl's own batches: what it adds to verl's ``ppo_loss``, and that it changes nothing else of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from verl.utils import tensordict_utils as tu
from verl.workers.config import ActorConfig
from verl.workers.utils.losses import ppo_loss

from sdar_verl.compat.loss import COEF_KEY, GATE_MEAN_KEY, TEACHER_FIELD, TEACHER_MASK, sdar_loss
from sdar_verl.core import DistillationConfig
from sdar_verl.errors import SdarError

PROMPTS, RESPONSES = (3, 5, 2, 4), (4, 1, 6, 3)
BETA = 5.0
TERM = DistillationConfig(coef=0.5, beta=BETA)


def nested(rows):
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def make_rows(padding=()):
    """Per row: prompt, response, mask (an observation in the middle of row 2) and log-probabilities; seeded.

    Rows in `padding` have an all-zero mask, as the rows that fill up a batch have.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(length):
        return torch.randn(length, generator=generator)

    rows = []
    for index, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        mask = torch.ones(response, dtype=torch.int64)
        if index == 2:
            mask[2:4] = 0
        if index in padding:
            mask[:] = 0
        student = -draw(response).abs()
        rows.append({
            "prompts": torch.arange(prompt),
            "responses": torch.arange(response),
            "response_mask": mask,
            "old_log_probs": student + 0.1 * draw(response),
            "advantages": draw(1).expand(response).clone(),
            "ref_log_prob": student + 0.2 * draw(response),
            TEACHER_FIELD: student + draw(response),
            TEACHER_MASK: mask.clone(),
            "student": student,
            "entropy": draw(response).abs(),
        })  # fmt: skip
    return rows


def call(rows, loss, config, coef=0.5, total=None, dp_size=1, drop=(), extra=None):
    """One micro-batch of `rows`; returns the loss, the metrics and the gradient by row's student log-probability."""
    total = total or rows
    leaves = [row["student"].clone().requires_grad_() for row in rows]
    # an engine's output covers prompt and response, shifted left by one
    outputs = [
        torch.cat([torch.zeros(len(row["prompts"]) - 1), leaf, torch.zeros(1)])
        for row, leaf in zip(rows, leaves, strict=True)
    ]
    fields = [name for name in rows[0] if name not in {"student", "entropy", *drop}]
    data = tu.get_tensordict(
        {name: nested([row[name] for row in rows]) for name in fields},
        {
            "dp_size": dp_size,
            "batch_num_tokens": sum(int(row["response_mask"].sum()) for row in total),
            "global_batch_size": sum(bool(row["response_mask"].any()) for row in total),
            **({} if coef is None else {COEF_KEY: coef}),
            **(extra or {}),
        },
    )
    entropy = [torch.cat([torch.zeros(len(row["prompts"]) - 1), row["entropy"], torch.zeros(1)]) for row in rows]
    output = {"log_probs": nested(outputs), "entropy": nested(entropy)}
    value, metrics = loss(config=config, model_output=output, data=data)
    value.backward()
    return value.item(), metrics, [leaf.grad for leaf in leaves]


def actor(mode="token-mean"):
    return ActorConfig(
        strategy="fsdp2",
        rollout_n=2,
        use_dynamic_bsz=True,
        loss_agg_mode=mode,
        use_kl_loss=True,
        kl_loss_coef=0.01,
        kl_loss_type="low_var_kl",
    )


def hook(config, **kwargs):
    return sdar_loss(config, distillation=TERM, **kwargs)


def oracle(rows, coef):
    """lambda * mean over sampled tokens of sigma(beta * gap) * (log teacher - log student), and its gradient."""
    count = sum(int(row["response_mask"].sum()) for row in rows)
    value, slopes = 0.0, []
    for row in rows:
        mask = row["response_mask"].numpy().astype(float)
        student, teacher = row["student"].numpy().astype(np.float64), row[TEACHER_FIELD].numpy().astype(np.float64)
        gate = 1 / (1 + np.exp(-BETA * (teacher - student)))
        value += float((mask * gate * (teacher - student)).sum())
        slopes.append(-coef * mask * gate / count)
    return coef * value / count, slopes


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean"])
def test_with_lambda_zero_it_is_verls_loss_bit_for_bit(mode):
    """Guards the comparison with GRPO: switching the term off must leave nothing of it."""
    rows, config = make_rows(), actor(mode)
    stock, stock_metrics, stock_slopes = call(rows, ppo_loss, config)
    value, metrics, slopes = call(rows, hook, config, coef=0.0)
    assert value == stock and math.isfinite(value)
    for found, expected in zip(slopes, stock_slopes, strict=True):
        assert torch.equal(found, expected) and expected.abs().sum() > 0
    for name, metric in stock_metrics.items():
        assert getattr(metrics[name], "values", metrics[name]) == getattr(metric, "values", metric)


def test_it_adds_the_gated_term_and_its_gradient():
    rows, config = make_rows(), actor()
    stock, _, stock_slopes = call(rows, ppo_loss, config)
    value, metrics, slopes = call(rows, hook, config, coef=0.5)
    added, added_slopes = oracle(rows, 0.5)
    assert value - stock == pytest.approx(added, abs=1e-6) and abs(added) > 0.01
    for found, before, expected in zip(slopes, stock_slopes, added_slopes, strict=True):
        np.testing.assert_allclose((found - before).numpy(), expected, atol=1e-6)
    assert any(name.startswith("sdar/") for name in metrics)


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean"])
def test_micro_batches_and_ranks_add_up_to_the_whole(mode):
    """Guards gradients that do not depend on how a mini-batch is cut; ranks average, so each counts dp_size times."""
    rows, config = make_rows(), actor(mode)
    whole, _, slopes = call(rows, hook, config)
    parts = [call(part, hook, config, total=rows) for part in (rows[:1], rows[1:])]
    assert sum(part[0] for part in parts) == pytest.approx(whole, abs=1e-6)
    for found, expected in zip(parts[0][2] + parts[1][2], slopes, strict=True):
        torch.testing.assert_close(found, expected)
    ranks = [call(part, hook, config, total=rows, dp_size=2) for part in (rows[:2], rows[2:])]
    assert sum(rank[0] for rank in ranks) / 2 == pytest.approx(whole, abs=1e-6)


def test_rows_that_pad_a_batch_and_poisoned_masked_tokens_change_nothing():
    rows, config = make_rows(padding={3}), actor()
    whole, _, slopes = call(rows[:3], hook, config, total=rows)
    rows[3][TEACHER_FIELD][:] = math.nan
    rows[2][TEACHER_FIELD][2:4] = math.inf
    value, metrics, found = call(rows, hook, config)
    assert value == pytest.approx(whole, abs=1e-7)
    for after, before in zip(found, slopes, strict=False):
        torch.testing.assert_close(after, before)
    assert torch.equal(found[3], torch.zeros_like(found[3]))
    assert all(np.isfinite(metric.aggregate()) for name, metric in metrics.items() if name.startswith("sdar/"))


@pytest.mark.parametrize(("drop", "coef", "named"), [((TEACHER_FIELD,), 0.5, TEACHER_FIELD), ((), None, COEF_KEY)])
def test_a_batch_without_teacher_is_refused(drop, coef, named):
    with pytest.raises(SdarError, match=f"the batch has no {named}.*trainer_mode=sdar"):
        call(make_rows(), hook, actor(), coef=coef, drop=drop)


def test_parts_get_entropy_old_log_probs_and_the_mean_gate():
    """The hook hands every part what it needs, in the right rows and places."""
    rows = make_rows()
    term = DistillationConfig(gate="soft_or", beta=2.0, gate_baseline="mean", importance_ratio="detached")
    stock, _, stock_slopes = call(rows, ppo_loss, actor())
    value, _, slopes = call(
        rows, lambda config, **kw: sdar_loss(config, distillation=term, **kw), actor(), extra={GATE_MEAN_KEY: 0.25}
    )
    count, added = sum(int(row["response_mask"].sum()) for row in rows), 0.0
    for row, found, before in zip(rows, slopes, stock_slopes, strict=True):
        gap = (row[TEACHER_FIELD] - row["student"]).numpy()
        gate = 1 / (1 + np.exp(-2.0 * (1 - (1 - row["entropy"].numpy()) * (1 - gap))))
        weight = (gate - 0.25) * np.exp((row["student"] - row["old_log_probs"]).numpy()) * row["response_mask"].numpy()
        added += float((weight * gap).sum()) * 0.5 / count
        np.testing.assert_allclose((found - before).numpy(), -0.5 * weight / count, atol=1e-6)
    assert value - stock == pytest.approx(added, abs=1e-6)


def test_without_rl_only_the_teacher_and_the_kl_term_teach():
    rows = make_rows()
    term = DistillationConfig(rl=False, coef=0.5)
    value, metrics, slopes = call(rows, lambda config, **kw: sdar_loss(config, distillation=term, **kw), actor())
    for row in rows:
        row["advantages"] = torch.zeros_like(row["advantages"])
    expected, _, expected_slopes = call(rows, hook, actor())
    assert value == expected
    assert all(torch.equal(a, b) for a, b in zip(slopes, expected_slopes, strict=True))
