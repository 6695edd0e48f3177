"""Metrics: right numbers by hand, and sums and counts that survive the way through the trainer."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdar_verl.core import DistillationConfig, Stat, distillation_loss, flatten, merge, resolve
from sdar_verl.core.metrics import GAP_BINS, GATE_BINS


def stats_of(student, teacher, mask, coef=0.01, **config):
    return distillation_loss(
        torch.tensor(student, dtype=torch.float64),
        torch.tensor(teacher, dtype=torch.float64),
        torch.tensor(mask),
        DistillationConfig(**config),
        coef=coef,
    ).metrics


def test_every_number_by_hand():
    gaps = [0.0, 0.09, -0.09, 2.0, -1.5, 0.15]
    stats = resolve(flatten(stats_of([[-3.0] * 6], [[-3.0 + gap for gap in gaps]], [[1] * 6], beta=1.0)))
    gate = [1 / (1 + math.exp(-gap)) for gap in gaps]
    assert stats["sdar/gap_mean"] == pytest.approx(0.65 / 6)
    assert stats["sdar/gate_mean"] == pytest.approx(sum(gate) / 6)
    assert stats["sdar/gate_active_ratio"] == pytest.approx(3 / 6)
    assert stats["sdar/gap_negative_share"] == pytest.approx(2 / 6)
    assert stats["sdar/decision_share"] == pytest.approx(3 / 6)
    assert stats["sdar/decision_gate_mean"] == pytest.approx((gate[3] + gate[4] + gate[5]) / 3)
    assert stats["sdar/decision_gap_mean"] == pytest.approx(0.65 / 3)
    assert stats["sdar/loss"] == pytest.approx(sum(g * d for g, d in zip(gate, gaps, strict=True)) / 6)
    assert stats["sdar/lambda"] == 0.01
    assert stats["sdar/gap_hist/-0.1..0.1"] == pytest.approx(3 / 6)
    assert stats["sdar/gap_hist/1..2"] == pytest.approx(1 / 6)
    assert stats["sdar/gap_hist/-2..-1"] == pytest.approx(1 / 6)
    assert stats["sdar/gate_hist/0.8..0.9"] == pytest.approx(1 / 6)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1), density=st.sampled_from([0.0, 0.5, 1.0]), scale=st.sampled_from([0.1, 1.0, 20.0])
)
def test_histograms_count_every_token_once_and_agree_with_the_shares(oracle, seed, density, scale):
    student, teacher, mask = oracle.make_case(seed, 4, 6, density, scale)
    stats = stats_of(student, teacher, mask)
    for prefix, bins in (("sdar/gap_hist/", GAP_BINS), ("sdar/gate_hist/", GATE_BINS)):
        assert sum(stats[prefix + b].sum for b in bins) == mask.sum()
        assert {stats[prefix + b].count for b in bins} == {float(mask.sum())}
    gap = (teacher - student)[mask == 1]
    for label in GAP_BINS:
        low, high = map(float, label.split(".."))
        assert stats[f"sdar/gap_hist/{label}"].sum == ((gap > low) & (gap <= high)).sum()
    active = sum(stats[f"sdar/gate_hist/{label}"].sum for label in GATE_BINS[5:])
    assert active == stats["sdar/gate_active_ratio"].sum


def test_names_do_not_depend_on_the_batch():
    full = stats_of([[-1.0, -2.0]], [[-2.0, -1.0]], [[1, 1]])
    empty = stats_of([[-1.0, -2.0]], [[-2.0, -1.0]], [[0, 0]])
    assert list(full) == list(empty)
    assert merge([full, empty])["sdar/gap_mean"] == full["sdar/gap_mean"]


def test_a_mean_over_nothing_is_left_out():
    resolved = resolve(flatten(stats_of([[-1.0]], [[-1.0]], [[0]])))
    assert set(resolved) == {"sdar/lambda"}


def test_resolve_keeps_other_numbers_and_refuses_half_a_pair():
    assert resolve({"lr": 1e-6, "a#sum": 3.0, "a#count": 4.0}) == {"lr": 1e-6, "a": 0.75}
    with pytest.raises(ValueError, match="'a' has a sum but no count"):
        resolve({"a#sum": 3.0})
    with pytest.raises(ValueError, match="'a' has a count but no sum"):
        resolve({"a#count": 3.0})


def test_stat_mean_of_nothing_raises():
    assert Stat(3.0, 4.0).mean == 0.75
    with pytest.raises(ZeroDivisionError):
        _ = Stat(0.0, 0.0).mean


def test_means_survive_the_trainers_own_reduction(oracle):
    """verl averages over ranks, sums over micro-batches and averages over mini-batches; the ratio must not care."""
    from verl.utils.metric import AggregationType, Metric, reduce_metrics

    cases = [oracle.make_case(seed, 2, 5, density=0.2 + 0.2 * seed) for seed in range(4)]
    parts = [stats_of(*case) for case in cases]
    mini_batches = []
    for first in (0, 2):  # two mini-batches, two ranks, one micro-batch each
        ranks = [
            {k: Metric(AggregationType.SUM, v) for k, v in flatten(parts[first + rank]).items()} for rank in range(2)
        ]
        mini_batches.append({k: Metric.aggregate_dp([rank[k] for rank in ranks]) for k in ranks[0]})
    reduced = resolve(reduce_metrics({k: [mini[k] for mini in mini_batches] for k in mini_batches[0]}))
    expected = {name: stat.mean for name, stat in merge(parts).items() if stat.count}
    assert set(reduced) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(reduced[name], value, rtol=1e-12, err_msg=name)
