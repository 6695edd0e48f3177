"""Differences over seeds and tasks: exact small cases, other implementations as oracles, coverage by simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sdar_verl.evaluation import paired
from sdar_verl.evaluation.intervals import paired_bootstrap
from sdar_verl.evaluation.paired import holm, mean_interval, paired_difference

outcomes = st.integers(2, 5).flatmap(
    lambda seeds: st.integers(2, 7).flatmap(
        lambda tasks: st.lists(
            st.lists(st.floats(0, 1), min_size=tasks, max_size=tasks), min_size=seeds, max_size=seeds
        )
    )
)


def test_the_draws_have_the_distribution_of_all_possible_draws():
    """Two seeds, three tasks: 4 x 27 draws can be listed, so the percentiles are known."""
    difference = np.array([[0.0, 1.0, 0.5], [0.25, 1.0, -1.0]])
    everything = sorted(
        difference[np.ix_(s, t)].mean()
        for s in itertools.product(range(2), repeat=2)
        for t in itertools.product(range(3), repeat=3)
    )
    low, high = np.quantile(everything, [0.1, 0.9], method="inverted_cdf")
    found = paired_difference(np.zeros((2, 3)), difference, resamples=40_000, confidence=0.8)
    factor = paired._widening(difference, 0.8)
    assert found.mean == pytest.approx(difference.mean())
    assert (found.low - found.mean) / factor + found.mean == pytest.approx(low, abs=0.02)
    assert (found.high - found.mean) / factor + found.mean == pytest.approx(high, abs=0.02)


def test_one_seed_is_the_bootstrap_over_tasks():
    draw = np.random.default_rng(1)
    a, b = draw.random((1, 40)), draw.random((1, 40))
    found, alone = paired_difference(a, b), paired_bootstrap(a[0], b[0])
    assert (found.mean, found.low, found.high) == (alone.mean, alone.low, alone.high)
    assert found.p is found.seed_low is found.seed_high is None and found.seeds == 1


def test_seeds_that_tie_have_no_t_test():
    """Two seeds tie by chance in one of twenty comparisons; their spread is not zero."""
    a, b = np.zeros((2, 60)), np.zeros((2, 60))
    b[0, :3] = b[1, 10:13] = 1.0
    found = paired_difference(a, b)
    assert found.by_seed == (0.05, 0.05) and found.p is found.seed_low is found.seed_high is None
    assert found.low < 0.05 < found.high


@given(outcomes, st.integers(0, 100))
@settings(max_examples=40)
def test_the_t_test_is_scipys_and_swapping_the_arms_changes_the_sign(a, seed):
    a = np.asarray(a)
    b = np.random.default_rng(seed).random(a.shape)
    found, swapped = paired_difference(a, b, resamples=500), paired_difference(b, a, resamples=500)
    oracle = stats.ttest_rel(b.mean(axis=1), a.mean(axis=1))
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-6, abs=1e-12)
    interval = oracle.confidence_interval(0.95)
    assert (found.seed_low, found.seed_high) == pytest.approx((interval.low, interval.high))
    assert found.mean == pytest.approx((b - a).mean()) and found.mean == pytest.approx(np.mean(found.by_seed))
    assert (swapped.mean, swapped.low, swapped.high) == pytest.approx((-found.mean, -found.high, -found.low))
    assert found.low <= found.mean <= found.high


def test_what_never_differs_has_an_interval_of_no_width():
    same = np.full((4, 6), 0.5)
    equal, ahead = paired_difference(same, same), paired_difference(same, same + 0.25)
    assert (equal.low, equal.mean, equal.high) == (0, 0, 0) and not equal.clear
    assert (ahead.low, ahead.high) == pytest.approx((0.25, 0.25)) and ahead.clear
    assert equal.p is ahead.p is None


def test_the_widening_of_seeds_alone_is_that_of_a_t_interval():
    """Where only seeds differ, the joint variance is theirs: t with n - 1 degrees of freedom, and n / (n - 1)."""
    difference = np.repeat([[0.1], [0.3], [0.2], [0.6], [0.0]], 50, axis=1)
    expected = stats.t.ppf(0.975, 4) / stats.norm.ppf(0.975) * math.sqrt(5 / 4)
    assert paired._widening(difference, 0.95) == pytest.approx(expected)
    many = np.random.default_rng(0).random((400, 400))
    assert paired._widening(many, 0.95) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("seeds", "seed_spread", "task_spread", "least"),
    [(3, 0.3, 0.5, 0.92), (5, 0.0, 0.5, 0.95), (5, 0.3, 0.5, 0.93), (5, 0.8, 0.3, 0.9), (10, 0.3, 0.5, 0.93)],
)
def test_the_interval_holds_what_it_says(seeds, seed_spread, task_spread, least):
    """Won or lost, from log-odds of task, seed and their effects; the two arms are equal on average."""
    draw = np.random.default_rng(7)
    held = 0
    for repeat in range(300):
        ease = draw.normal(0, 1, 60)
        arms = [
            1 / (1 + np.exp(-ease - draw.normal(0, task_spread, 60) - draw.normal(0, seed_spread, (seeds, 1))))
            for _ in range(2)
        ]
        a, b = ((draw.random((3, seeds, 60)) < share).mean(axis=0) for share in arms)
        found = paired_difference(a, b, resamples=600, seed=repeat)
        held += found.low <= 0 <= found.high
    assert held / 300 >= least


def test_a_real_difference_is_found():
    draw = np.random.default_rng(3)
    a, b = (draw.random((5, 60)) < 0.4).astype(float), (draw.random((5, 60)) < 0.7).astype(float)
    found = paired_difference(a, b)
    assert found.clear and found.low > 0.1 and found.p < 0.05
    assert paired_difference(a, b) == found


@pytest.mark.parametrize(("a", "b"), [([[1.0]], [[1.0], [0.0]]), ([], []), ([1.0, 0.0], [1.0, 0.0]), ([[]], [[]])])
def test_outcomes_that_are_not_paired_are_refused(a, b):
    with pytest.raises(ValueError, match="one shape"):
        paired_difference(a, b)


@pytest.mark.parametrize("wrong", [{"resamples": 0}, {"confidence": 0.0}, {"confidence": 1.0}])
def test_arguments_outside_their_range_are_refused(wrong):
    with pytest.raises(ValueError, match="resamples|confidence"):
        paired_difference([[0.0, 1.0]] * 2, [[1.0, 1.0]] * 2, **wrong)


def test_holm_of_a_case_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([0.02]) == [0.02] and holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_value_and_bonferroni_and_keeps_the_order(values):
    adjusted = holm(values)
    for value, own in zip(values, adjusted, strict=True):
        assert value <= own + 1e-12 and own <= min(1.0, len(values) * value) + 1e-12
    ranked = sorted(range(len(values)), key=lambda i: values[i])
    assert [adjusted[i] for i in ranked] == sorted(adjusted)


def test_mean_interval_is_scipys():
    values = [0.1, 0.5, 0.4, 0.7]
    oracle = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert mean_interval(values) == pytest.approx((np.mean(values), *oracle))
    assert mean_interval([0.3]) == (0.3, 0.3, 0.3)
