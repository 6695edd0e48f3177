import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar_verl.evaluation.intervals import paired_bootstrap, wilson

Z95 = 1.959963984540054


def score_test_ends(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """The interval by its definition: all p that the score test does not reject, as roots of a quadratic in p."""
    share = successes / n
    roots = np.roots([1 + z * z / n, -(2 * share + z * z / n), share * share])
    return min(roots.real), max(roots.real)


@given(st.integers(1, 500), st.data())
def test_wilson_is_the_inverted_score_test(n, data):
    successes = data.draw(st.integers(0, n))
    found = wilson(successes, n)
    low, high = score_test_ends(successes, n)
    assert found.rate == successes / n and found.n == n
    assert found.low == pytest.approx(low, abs=1e-6) and found.high == pytest.approx(high, abs=1e-6)
    assert 0 <= found.low <= found.rate <= found.high <= 1


def test_wilson_of_a_textbook_case():
    # 81 of 263: 0.2553 to 0.3662 (R. G. Newcombe 1998, table of single-proportion intervals, method 3)
    found = wilson(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    # 0 of 20: the upper end is z²/(n + z²)
    assert wilson(0, 20).low == 0 and wilson(0, 20).high == pytest.approx(Z95**2 / (20 + Z95**2))


@given(st.integers(1, 200), st.data())
def test_wilson_is_symmetric_and_narrows_with_confidence(n, data):
    successes = data.draw(st.integers(0, n))
    one, other = wilson(successes, n), wilson(n - successes, n)
    assert one.low == pytest.approx(1 - other.high) and one.high == pytest.approx(1 - other.low)
    narrow = wilson(successes, n, 0.5)
    assert one.low <= narrow.low + 1e-12 and narrow.high <= one.high + 1e-12


def test_wilson_covers_the_truth_about_as_often_as_it_says():
    draws = np.random.default_rng(0).binomial(60, 0.35, size=2000)
    ends = {k: wilson(int(k), 60) for k in set(draws.tolist())}
    covered = np.mean([ends[k].low <= 0.35 <= ends[k].high for k in draws.tolist()])
    assert 0.93 <= covered <= 0.975


@pytest.mark.parametrize("arguments", [(1, 0), (-1, 5), (6, 5), (1, 5, 0.0), (1, 5, 1.0)])
def test_wilson_refuses_nonsense(arguments):
    with pytest.raises(ValueError):
        wilson(*arguments)


def test_bootstrap_agrees_with_the_normal_theory_for_many_tasks():
    draw = np.random.default_rng(1)
    a, b = draw.binomial(1, 0.4, 2000), draw.binomial(1, 0.5, 2000)
    found = paired_bootstrap(a, b)
    difference = b - a
    half = Z95 * difference.std() / math.sqrt(len(difference))
    assert found.mean == pytest.approx(difference.mean())
    assert found.low == pytest.approx(difference.mean() - half, abs=0.003)
    assert found.high == pytest.approx(difference.mean() + half, abs=0.003)


def test_bootstrap_pairs_tasks_and_repeats_itself():
    a = [0, 1] * 50
    same = paired_bootstrap(a, a)
    assert (same.mean, same.low, same.high, same.n) == (0, 0, 0, 100)
    b = [1, 1] * 50
    assert paired_bootstrap(a, b, seed=3) == paired_bootstrap(a, b, seed=3)
    forth, back = paired_bootstrap(a, b), paired_bootstrap(b, a)
    assert forth.mean == -back.mean and forth.low == pytest.approx(-back.high)


@pytest.mark.parametrize(
    "a, b, options", [([], [], {}), ([1], [1, 0], {}), ([1], [1], {"resamples": 0}), ([1], [1], {"confidence": 2})]
)
def test_bootstrap_refuses_nonsense(a, b, options):
    with pytest.raises(ValueError):
        paired_bootstrap(a, b, **options)
