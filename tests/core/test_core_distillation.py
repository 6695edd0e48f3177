"""The distillation term against a dense NumPy oracle, and the properties that must hold whatever the numbers are."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdar_verl.core import GATES, DistillationConfig, distillation_loss
from sdar_verl.core.metrics import merge

CASES = {
    "seed": st.integers(0, 2**32 - 1),
    "rows": st.integers(1, 5),
    "columns": st.integers(1, 7),
    "density": st.sampled_from([0.0, 0.2, 0.7, 1.0]),
    "scale": st.sampled_from([1e-4, 0.3, 3.0, 60.0]),
}
SETTINGS = settings(max_examples=60)


def run(student, teacher, mask, *, coef=1.0, dtype=torch.float64, config=None, **kwargs):
    """Loss and gradient of the student's log-probabilities."""
    student = torch.tensor(student, dtype=dtype, requires_grad=True)
    output = distillation_loss(
        student,
        torch.tensor(teacher, dtype=dtype),
        torch.tensor(mask),
        config or DistillationConfig(),
        coef=coef,
        **kwargs,
    )
    output.loss.backward()
    return output, student.grad.numpy()


@SETTINGS
@given(beta=st.sampled_from([0.5, 5.0, 10.0]), gate=st.sampled_from(["gap", "none"]), **CASES)
def test_value_and_gradient_equal_the_oracle(oracle, seed, rows, columns, density, scale, beta, gate):
    student, teacher, mask = oracle.make_case(seed, rows, columns, density, scale)
    output, gradient = run(student, teacher, mask, coef=0.7, config=DistillationConfig(gate=gate, beta=beta))
    np.testing.assert_allclose(output.loss.item(), 0.7 * oracle.loss(student, teacher, mask, beta, gate), atol=1e-12)
    np.testing.assert_allclose(gradient, 0.7 * oracle.gradient(student, teacher, mask, beta, gate), atol=1e-12)


@SETTINGS
@given(**CASES)
def test_float32_equals_the_float64_oracle_to_1e_6(oracle, seed, rows, columns, density, scale):
    student, teacher, mask = oracle.make_case(seed, rows, columns, density, scale)
    student, teacher = (x.astype(np.float32).astype(np.float64) for x in (student, teacher))
    output, gradient = run(student, teacher, mask, dtype=torch.float32)
    np.testing.assert_allclose(output.loss.item(), oracle.loss(student, teacher, mask), rtol=2e-6, atol=1e-6 * scale)
    np.testing.assert_allclose(gradient, oracle.gradient(student, teacher, mask), rtol=5e-5, atol=1e-6)


def test_gradient_equals_finite_differences_at_a_fixed_gate(oracle):
    student, teacher, mask = oracle.make_case(3, 3, 4)
    gate = oracle.gate_values(student, teacher, 5.0)
    _, gradient = run(student, teacher, mask)
    for index in np.ndindex(*student.shape):
        up, down = student.copy(), student.copy()
        up[index] += 1e-6
        down[index] -= 1e-6
        slope = (
            oracle.loss_with_gate(up, teacher, mask, gate) - oracle.loss_with_gate(down, teacher, mask, gate)
        ) / 2e-6
        assert gradient[index] == pytest.approx(slope, abs=1e-8)


def test_gate_is_detached(oracle):
    """A gate that carried gradient would add beta * gap * g * (1 - g) to every token's weight."""
    student, teacher, mask = oracle.make_case(4, 4, 5, density=1.0)
    gap, beta, count = teacher - student, 5.0, student.size
    gate = oracle.sigmoid(beta * gap)
    _, gradient = run(student, teacher, mask)
    attached = -(gate + beta * gap * gate * (1 - gate)) / count
    assert np.abs(attached - gradient).max() > 1e-3
    np.testing.assert_allclose(gradient, -gate / count, atol=1e-14)


def test_a_gate_that_forgets_to_detach_is_detached_for_it(monkeypatch):
    """The seat for other gates sees the student with gradient; its result must carry none."""
    monkeypatch.setitem(GATES._parts, "leaky", lambda tokens, config: torch.sigmoid(tokens.teacher - tokens.student))
    _, gradient = run([[-1.0, -2.0]], [[-2.0, -1.5]], [[1, 1]], config=DistillationConfig(gate="leaky"))
    np.testing.assert_allclose(gradient, [[-0.5 / (1 + math.exp(1.0)), -0.5 / (1 + math.exp(-0.5))]], rtol=1e-12)


def test_a_descent_step_makes_supported_tokens_more_likely(oracle):
    """The sign: all gradients point down, most where the teacher agrees with the sampled token."""
    _, gradient = run([[-1.0, -1.0, -1.0]], [[-3.0, -1.0, -0.2]], [[1, 1, 1]])
    assert (gradient < 0).all()
    assert gradient[0, 0] > gradient[0, 1] > gradient[0, 2]


def test_teacher_receives_no_gradient():
    student = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    teacher = torch.tensor([[-0.5, -3.0]], requires_grad=True)
    distillation_loss(student, teacher, torch.ones(1, 2), DistillationConfig(), coef=1.0).loss.backward()
    assert teacher.grad is None


@SETTINGS
@given(beta=st.sampled_from([0.1, 5.0, 50.0]), **CASES)
def test_equal_log_probs_give_gap_zero_and_gate_one_half(oracle, seed, rows, columns, density, scale, beta):
    student, _, mask = oracle.make_case(seed, rows, columns, density, scale)
    output, gradient = run(student, student, mask, dtype=torch.float32, config=DistillationConfig(beta=beta))
    count = float(mask.sum())
    assert output.loss.item() == 0.0
    assert output.metrics["sdar/gate_mean"].sum == 0.5 * count
    assert output.metrics["sdar/gap_mean"].sum == 0.0
    assert output.metrics["sdar/gate_active_ratio"].sum == 0.0
    assert output.metrics["sdar/gap_negative_share"].sum == 0.0
    assert (gradient[mask == 1] == np.float32(-0.5) / np.float32(max(count, 1))).all()


@SETTINGS
@given(**CASES)
def test_permuting_rows_permutes_gradients(oracle, seed, rows, columns, density, scale):
    student, teacher, mask = oracle.make_case(seed, rows, columns, density, scale)
    order = np.random.default_rng(seed).permutation(rows)
    one, gradient = run(student, teacher, mask)
    two, permuted = run(student[order], teacher[order], mask[order])
    np.testing.assert_allclose(one.loss.item(), two.loss.item(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gradient[order], permuted, rtol=1e-12)


@SETTINGS
@given(extra_rows=st.integers(0, 3), extra_columns=st.integers(0, 3), **CASES)
def test_padding_changes_nothing(oracle, seed, rows, columns, density, scale, extra_rows, extra_columns):
    student, teacher, mask = oracle.make_case(seed, rows, columns, density, scale)
    pad = ((0, extra_rows), (0, extra_columns))
    one, gradient = run(student, teacher, mask)
    two, padded = run(
        np.pad(student, pad, constant_values=-1.0),
        np.pad(teacher, pad, constant_values=-2.0),
        np.pad(mask, pad),
    )
    np.testing.assert_allclose(one.loss.item(), two.loss.item(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(padded, np.pad(gradient, pad), rtol=1e-12, atol=0)
    assert {k: v.count for k, v in one.metrics.items()} == {k: v.count for k, v in two.metrics.items()}


@SETTINGS
@given(poison=st.sampled_from([math.nan, math.inf, -math.inf]), **CASES)
def test_poison_outside_the_mask_changes_nothing(oracle, seed, rows, columns, density, scale, poison):
    student, teacher, mask = oracle.make_case(seed, rows, columns, density, scale)
    clean, clean_gradient = run(student, teacher, mask)
    bad_student, bad_teacher = np.where(mask, student, poison), np.where(mask, teacher, poison)
    poisoned, gradient = run(bad_student, bad_teacher, mask)
    assert poisoned.loss.item() == clean.loss.item()
    np.testing.assert_array_equal(gradient, clean_gradient)
    assert poisoned.metrics == clean.metrics


@SETTINGS
@given(size=st.integers(1, 3), **CASES)
def test_micro_batches_add_up_to_the_whole(oracle, seed, rows, columns, density, scale, size):
    student, teacher, mask = oracle.make_case(seed, rows, columns, density, scale)
    tokens = int(mask.sum())
    whole, gradient = run(student, teacher, mask, num_tokens_global=tokens)
    cuts = [slice(i, i + size) for i in range(0, rows, size)]
    parts = [run(student[c], teacher[c], mask[c], num_tokens_global=tokens) for c in cuts]
    np.testing.assert_allclose(sum(p.loss.item() for p, _ in parts), whole.loss.item(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.concatenate([g for _, g in parts]), gradient, rtol=1e-12)
    merged = merge(p.metrics for p, _ in parts)
    for name, stat in whole.metrics.items():
        if name != "sdar/lambda":
            assert merged[name].count == stat.count
            assert merged[name].sum == pytest.approx(stat.sum, rel=1e-12, abs=1e-12)


@SETTINGS
@given(ranks=st.integers(1, 4), **CASES)
def test_mean_of_rank_gradients_is_the_gradient_of_one_process(oracle, seed, rows, columns, density, scale, ranks):
    """Ranks with different token counts, some perhaps with none, as data-parallel training averages them."""
    student, teacher, mask = oracle.make_case(seed, rows, columns, density, scale)
    tokens = int(mask.sum())
    whole, gradient = run(student, teacher, mask)
    owner = np.random.default_rng(seed).integers(0, ranks, size=rows)
    mean_gradient, mean_loss = np.zeros_like(gradient), 0.0
    for rank in range(ranks):
        mine = mask * (owner == rank)[:, None]
        output, local = run(student, teacher, mine, num_tokens_global=tokens, dp_size=ranks)
        mean_gradient += local / ranks
        mean_loss += output.loss.item() / ranks
    np.testing.assert_allclose(mean_loss, whole.loss.item(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(mean_gradient, gradient, rtol=1e-12, atol=1e-15)


def test_a_batch_without_response_tokens_gives_zero_and_keeps_the_graph():
    output, gradient = run([[-1.0, -2.0]], [[-2.0, -1.0]], [[0, 0]])
    assert output.loss.item() == 0.0
    assert (gradient == 0).all()
    assert all(math.isfinite(stat.sum) for stat in output.metrics.values())


def test_coef_scales_the_loss_but_not_the_metrics(oracle):
    student, teacher, mask = oracle.make_case(5, 3, 4)
    one, gradient = run(student, teacher, mask, coef=1.0)
    small, small_gradient = run(student, teacher, mask, coef=0.01)
    off, no_gradient = run(student, teacher, mask, coef=0.0)
    assert small.loss.item() == pytest.approx(0.01 * one.loss.item())
    np.testing.assert_allclose(small_gradient, 0.01 * gradient)
    assert off.loss.item() == 0.0
    assert not no_gradient.any()
    assert off.metrics["sdar/loss"] == small.metrics["sdar/loss"] == one.metrics["sdar/loss"]


def test_half_precision_is_computed_in_float32():
    student = torch.tensor([[-1.0, -2.0]], dtype=torch.bfloat16, requires_grad=True)
    output = distillation_loss(student, student.detach() - 0.5, torch.ones(1, 2), DistillationConfig(), coef=1.0)
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    assert student.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("which", ["student_log_probs", "teacher_log_probs"])
@pytest.mark.parametrize("value", [math.nan, -math.inf, math.inf])
def test_a_response_token_without_a_finite_log_prob_is_refused(which, value):
    arrays = {"student_log_probs": [[-1.0, -2.0]], "teacher_log_probs": [[-1.0, -2.0]]}
    arrays[which] = [[-1.0, value]]
    with pytest.raises(ValueError, match=rf"{which} has 1 values .* row 0, token 1.*same response ids"):
        run(*arrays.values(), [[1, 1]])


def test_bad_shapes_masks_and_coefficients_are_refused():
    two, config = torch.zeros(1, 2), DistillationConfig()
    with pytest.raises(ValueError, match="share one shape"):
        distillation_loss(two, torch.zeros(1, 3), two, config, coef=1.0)
    with pytest.raises(ValueError, match="share one shape"):
        distillation_loss(torch.zeros(2), torch.zeros(2), torch.zeros(2), config, coef=1.0)
    with pytest.raises(ValueError, match="only 0 and 1"):
        distillation_loss(two, two, torch.tensor([[0.5, 1.0]]), config, coef=1.0)
    for coef in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="lambda"):
            distillation_loss(two, two, two, config, coef=coef)


def _expected_gradient(logits, teacher, config):
    """Exact expectation over a whole vocabulary of the term's gradient in the logits, tokens drawn from the policy."""
    logits = torch.tensor(logits, requires_grad=True)
    student = torch.log_softmax(logits, dim=-1)
    leaf = student.detach()[None].requires_grad_()
    distillation_loss(
        leaf, torch.tensor(teacher)[None], torch.ones_like(leaf), config, coef=1.0, loss_agg_mode="token-sum"
    ).loss.backward()
    (student * (leaf.grad[0] * student.detach().exp())).sum().backward()
    return logits.grad.numpy()


def _reverse_kl_gradient(logits, teacher):
    logits = torch.tensor(logits, requires_grad=True)
    student = torch.log_softmax(logits, dim=-1)
    (student.exp() * (student - torch.tensor(teacher))).sum().backward()
    return logits.grad.numpy()


def _policies(gap_scale):
    rng = np.random.default_rng(11)
    logits = rng.normal(size=9)
    other = logits + gap_scale * rng.normal(size=9)
    return logits, other - np.log(np.exp(other).sum())


def test_on_policy_the_gap_gate_is_beta_over_4_times_the_reverse_kl_gradient():
    logits, teacher = _policies(1e-3)
    mine = _expected_gradient(logits, teacher, DistillationConfig(beta=5.0))
    np.testing.assert_allclose(mine, 5.0 / 4 * _reverse_kl_gradient(logits, teacher), rtol=1e-3, atol=1e-9)


def test_on_policy_the_term_without_gate_has_no_expected_gradient():
    logits, teacher = _policies(1.0)
    assert np.abs(_expected_gradient(logits, teacher, DistillationConfig(gate="none"))).max() < 1e-12
    assert np.abs(_expected_gradient(logits, teacher, DistillationConfig(gate="gap"))).max() > 1e-2
