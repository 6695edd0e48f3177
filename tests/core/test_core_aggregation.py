"""Aggregation agrees with verl's own function in every mode, and is safe where that one is not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdar_verl.core.aggregation import MODES, aggregate


@settings(max_examples=80)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 5),
    columns=st.integers(1, 6),
    density=st.sampled_from([0.3, 1.0]),
    mode=st.sampled_from(MODES),
    dp_size=st.integers(1, 4),
    given_totals=st.booleans(),
)
def test_equals_verl(seed, rows, columns, density, mode, dp_size, given_totals):
    from verl.trainer.ppo.core_algos import agg_loss

    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    mask = torch.rand(rows, columns, generator=generator) < density
    mask[0, 0] = True
    totals = {"batch_num_tokens": 40, "global_batch_size": 9, "loss_scale_factor": 12}
    if not given_totals:
        totals, dp_size = dict.fromkeys(totals), 1
    theirs = agg_loss(values, mask, mode, dp_size=dp_size, **totals)
    ours = aggregate(
        values,
        mask,
        mode=mode,
        num_tokens=totals["batch_num_tokens"],
        num_sequences=totals["global_batch_size"],
        dp_size=dp_size,
        scale_factor=totals["loss_scale_factor"],
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_knows_every_mode_of_the_installed_verl(mode):
    from verl.trainer.ppo.core_algos import agg_loss

    agg_loss(torch.ones(1, 1), torch.ones(1, 1), mode)
    with pytest.raises(ValueError, match="unknown loss_agg_mode 'mean'; known: token-mean"):
        aggregate(torch.ones(1, 1), torch.ones(1, 1), mode="mean")


@pytest.mark.parametrize("mode", MODES)
def test_nothing_to_count_gives_zero_not_nan(mode):
    values = torch.full((2, 3), float("nan"), requires_grad=True)
    loss = aggregate(values, torch.zeros(2, 3), mode=mode)
    loss.backward()
    assert loss.item() == 0.0
    assert (values.grad == 0).all()


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_row_counts_nowhere(mode):
    values, mask = torch.randn(3, 4), torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    with_row = aggregate(values, mask, mode=mode)
    without = aggregate(values[[0, 2]], mask[[0, 2]], mode=mode)
    torch.testing.assert_close(with_row, without)


@pytest.mark.parametrize("mode", [m for m in MODES if m != "token-sum"])
def test_several_ranks_need_the_global_count(mode):
    with pytest.raises(ValueError, match="is needed when dp_size > 1"):
        aggregate(torch.ones(2, 2), torch.ones(2, 2), mode=mode, dp_size=2)


@pytest.mark.parametrize(("mode", "name"), [("token-mean", "num_tokens"), ("seq-mean-token-sum", "num_sequences")])
def test_a_local_count_in_the_place_of_the_global_one_is_refused(mode, name):
    with pytest.raises(ValueError, match=f"{name}=1 is smaller than"):
        aggregate(torch.ones(2, 2), torch.ones(2, 2), mode=mode, **{name: 1})


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"share one shape \(B, T\)"):
        aggregate(torch.ones(2, 2), torch.ones(2, 3))
