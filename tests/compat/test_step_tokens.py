"""What is read from and written to TransferQueue once a step: advantages that the teacher shapes, and the mean gate.

A dictionary stands in for the queue; the real one is used by tests/e2e.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensordict import NonTensorData, NonTensorStack, TensorDict

from sdar_verl.compat import step_tokens
from sdar_verl.compat.loss import TEACHER_FIELD, TEACHER_MASK
from sdar_verl.core import DistillationConfig, StepGroupsConfig

KEYS = ("u_0_0", "u_1_0", "u_0_1")
LENGTHS = (4, 1, 3)
RLSD = DistillationConfig(place="advantage", advantage="evidence", gate="none", coef=0.5)


@pytest.fixture
def queue(monkeypatch):
    """Three rows; the last token of the first is an observation, the last row has none that was sampled."""
    generator = torch.Generator().manual_seed(0)
    masks = [torch.ones(length, dtype=torch.int64) for length in LENGTHS]
    masks[0][-1] = 0
    masks[2][:] = 0
    rows = {
        "response_mask": masks,
        TEACHER_MASK: [mask.clone() for mask in masks],
        "advantages": [torch.full((n,), a) for n, a in zip(LENGTHS, (1.5, -1.5, 0.0), strict=True)],
    }
    for name in ("old_log_probs", TEACHER_FIELD):
        rows[name] = [-torch.randn(length, generator=generator).abs() for length in LENGTHS]
    rows["entropy"] = [torch.rand(length, generator=generator) for length in LENGTHS]
    rows[TEACHER_FIELD][2][:] = torch.nan
    store = {name: torch.nested.as_nested_tensor(values, layout=torch.jagged) for name, values in rows.items()}

    def get(keys, partition_id, select_fields):
        return TensorDict({name: store[name] for name in select_fields}, batch_size=len(keys))

    def put(keys, partition_id, fields):
        assert tuple(keys) == KEYS
        store.update(fields.items())

    monkeypatch.setattr(step_tokens.tq, "kv_batch_get", get)
    monkeypatch.setattr(step_tokens.tq, "kv_batch_put", put)
    batch = SimpleNamespace(keys=KEYS, tags=[{}, {}, {}], partition_id="train")
    return SimpleNamespace(store=store, batch=batch)


def rows_of(queue, name):
    return [row.numpy().copy() for row in queue.store[name].unbind()]


def test_advantages_are_replaced_token_by_token(queue):
    before, old, teacher = (rows_of(queue, name) for name in ("advantages", "old_log_probs", TEACHER_FIELD))
    metrics = step_tokens.shape_advantages(queue.batch, RLSD, coef=0.5)
    after = rows_of(queue, "advantages")
    changes = []
    for row, sampled in ((0, 3), (1, 1)):
        evidence = np.exp(np.sign(before[row]) * (teacher[row] - old[row])).clip(0.8, 1.2)
        expected = before[row] * (0.5 + 0.5 * evidence)
        np.testing.assert_allclose(after[row][:sampled], expected[:sampled], rtol=1e-6)
        changes += list((expected - before[row])[:sampled])
    assert (after[0][3:] == 0).all() and (after[2] == 0).all()
    assert [len(row) for row in after] == list(LENGTHS)
    assert metrics["sdar/advantage_change"] == pytest.approx(np.mean(changes), rel=1e-5)
    assert metrics["sdar/lambda"] == 0.5 and "sdar/gap_mean" in metrics
    assert not any("gate" in name for name in metrics)


def test_lambda_zero_leaves_the_advantages_of_sampled_tokens(queue):
    before = rows_of(queue, "advantages")
    step_tokens.shape_advantages(queue.batch, RLSD, coef=0.0)
    after = rows_of(queue, "advantages")
    assert (after[0][:3] == before[0][:3]).all() and (after[1] == before[1]).all()


def test_without_rl_only_the_gap_is_paid(queue):
    old, teacher = (rows_of(queue, name) for name in ("old_log_probs", TEACHER_FIELD))
    term = DistillationConfig(place="advantage", advantage="reverse_kl", gate="none", rl=False, coef=2.0)
    step_tokens.shape_advantages(queue.batch, term, coef=2.0)
    np.testing.assert_allclose(rows_of(queue, "advantages")[1], 2.0 * (teacher[1] - old[1]), rtol=1e-6)


@pytest.mark.parametrize("gate", ["gap", "entropy"])
def test_the_mean_gate_counts_sampled_tokens_alone(queue, gate):
    old, teacher, entropy = (rows_of(queue, name) for name in ("old_log_probs", TEACHER_FIELD, "entropy"))
    values = entropy if gate == "entropy" else [t - o for t, o in zip(teacher, old, strict=True)]
    sampled = np.concatenate([values[0][:3], values[1]])
    found = step_tokens.step_gate_mean(queue.batch, DistillationConfig(gate=gate, beta=2.0, gate_baseline="mean"))
    assert found == pytest.approx(np.mean(1 / (1 + np.exp(-2.0 * sampled))), rel=1e-5)


@pytest.mark.parametrize("padding", [False, True])
def test_turns_in_the_same_state_are_compared(queue, padding):
    """Two episodes of one group begin alike; the first wins with its second turn, the second makes a mistake."""
    before = rows_of(queue, "advantages")
    extras = [
        {"state": "start", "gained": 0.0, "penalty": 0.0},
        {"state": "start", "gained": 0.0, "penalty": 0.1},
        {"state": "later", "gained": 10.0, "penalty": 0.0},
    ]
    queue.store["extra_fields"] = NonTensorStack(*(NonTensorData(extra) for extra in extras))
    if padding:
        queue.batch.tags[2] = {"is_padding": True}
    metrics = step_tokens.add_step_advantages(queue.batch, StepGroupsConfig(weight=2.0, gamma=0.5))
    returns = (0.0, -0.1) if padding else (5.0, -0.1)
    expected = [2.0 * (value - sum(returns) / 2) for value in returns]
    after = rows_of(queue, "advantages")
    np.testing.assert_allclose(after[0], before[0] + expected[0] * np.array([1, 1, 1, 0]), rtol=1e-6)
    np.testing.assert_allclose(after[1], before[1] + expected[1], rtol=1e-6)
    np.testing.assert_array_equal(after[2], before[2])
    assert metrics["step_groups/alone_share"] == pytest.approx(0.0 if padding else 1 / 3)
    assert metrics["step_groups/size_mean"] == pytest.approx(2.0 if padding else 5 / 3)


def test_a_step_that_teaches_nothing_has_no_mean_gate_and_keeps_its_advantages(queue):
    """A group in which nothing can be shown: early in training that is every group."""
    for mask in queue.store[TEACHER_MASK].unbind():
        mask[:] = 0
    assert step_tokens.step_gate_mean(queue.batch, DistillationConfig(gate_baseline="mean")) == 0.0
    before = rows_of(queue, "advantages")
    metrics = step_tokens.shape_advantages(queue.batch, RLSD, coef=0.5)
    after = rows_of(queue, "advantages")
    assert (after[0][:3] == before[0][:3]).all() and (after[1] == before[1]).all() and "sdar/gap_mean" not in metrics


def test_rows_without_context_keep_the_rewards_advantage(queue):
    queue.store[TEACHER_MASK].unbind()[1][:] = 0
    before = rows_of(queue, "advantages")
    step_tokens.shape_advantages(queue.batch, RLSD, coef=0.5)
    after = rows_of(queue, "advantages")
    assert (after[1] == before[1]).all() and (after[0][:3] != before[0][:3]).any()
