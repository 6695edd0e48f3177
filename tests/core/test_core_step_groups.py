"""GiGPO's step-level advantages against a loop in NumPy, and what must hold for any numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdar_verl.core import discounted_returns, step_advantages

TURNS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.floats(-10, 10)), min_size=1, max_size=30)


@given(st.lists(st.floats(-10, 10), max_size=12), st.sampled_from([0.0, 0.5, 0.95, 1.0]))
def test_returns_equal_the_sum(rewards, gamma):
    expected = [sum(gamma ** (k - t) * rewards[k] for k in range(t, len(rewards))) for t in range(len(rewards))]
    assert discounted_returns(rewards, gamma) == pytest.approx(expected, abs=1e-9)


@given(TURNS, st.sampled_from(["mean", "mean_std"]))
def test_advantages_equal_the_loop(turns, norm):
    states = [(group, state) for group, state, _ in turns]
    returns = np.array([value for _, _, value in turns])
    expected = np.zeros(len(turns))
    for index, state in enumerate(states):
        own = returns[[other == state for other in states]]
        if len(own) > 1:
            expected[index] = returns[index] - own.mean()
            if norm == "mean_std":
                expected[index] /= own.std(ddof=1) + 1e-6
    found = step_advantages(torch.tensor(returns, dtype=torch.float64), states, norm)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@given(TURNS, st.floats(-100, 100))
def test_a_constant_on_every_return_changes_nothing(turns, constant):
    states = [turn[:2] for turn in turns]
    returns = torch.tensor([turn[2] for turn in turns], dtype=torch.float64)
    torch.testing.assert_close(step_advantages(returns + constant, states), step_advantages(returns, states))


def test_the_same_observation_in_another_group_is_another_state():
    returns = torch.tensor([10.0, 0.0, 10.0, 0.0])
    same = step_advantages(returns, [("a", "s"), ("a", "s"), ("b", "s"), ("b", "s")])
    assert same.tolist() == [5.0, -5.0, 5.0, -5.0]
    assert step_advantages(returns, [("a", "s"), ("b", "s"), ("c", "s"), ("d", "s")]).tolist() == [0.0] * 4


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="one state for each return, got 1"):
        step_advantages(torch.zeros(2), ["a"])
    with pytest.raises(ValueError, match="known: mean, mean_std"):
        step_advantages(torch.zeros(1), ["a"], "std")
