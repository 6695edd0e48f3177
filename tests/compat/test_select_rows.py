"""Selecting rows gives what verl gives, for every kind of field."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from verl.utils import tensordict_utils as tu

from sdar_verl.compat.select_rows import rows_at_once, select_rows


def nested(rows):
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def batch(lengths):
    generator = torch.Generator().manual_seed(0)
    count = len(lengths)
    turned = torch.nested.nested_tensor_from_jagged(
        torch.randn(3, sum(lengths)), torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()]), jagged_dim=2
    )
    fields = {
        "ids": nested([torch.randint(100, (length,), generator=generator) for length in lengths]),
        "logits": nested([torch.randn(length, 5, generator=generator) for length in lengths]),
        "three positions a token": turned,
        "plain": torch.randn(count, 2, generator=generator),
    }
    data = tu.get_tensordict(fields, {"temperature": 0.7})
    tu.assign_non_tensor_stack(data, "name", [f"row {row}" for row in range(count)])
    return data


@given(st.data(), st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_rows_are_those_that_verl_selects(data, lengths):
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=12))
    given_ = batch(lengths)
    found, expected = select_rows(given_, torch.tensor(rows)), tu.index_select_tensor_dict(given_, torch.tensor(rows))
    assert set(found.keys()) == set(expected.keys()) and found.batch_size == expected.batch_size
    for key in ("ids", "logits"):
        assert torch.equal(found[key].offsets(), expected[key].offsets())
        assert torch.equal(found[key].values(), expected[key].values())
    assert torch.equal(found["ids"].to_padded_tensor(0), expected["ids"].to_padded_tensor(0))
    assert found["logits"].to_padded_tensor(0).shape[1] == max(lengths[row] for row in rows)
    assert torch.equal(found["three positions a token"].values(), expected["three positions a token"].values())
    assert torch.equal(found["plain"], expected["plain"])
    assert list(found["name"]) == [f"row {row}" for row in rows]
    assert tu.get_non_tensor_data(found, "temperature", None) == 0.7


def test_mini_batches_are_those_of_verl_in_its_order():
    data = batch([3, 1, 4, 1, 5, 9, 2, 6])
    settings = {"mini_batch_size": 2, "epochs": 2, "seed": 7, "dataloader_kwargs": {"shuffle": True}}
    expected = list(tu.make_iterator(data, **settings))
    with rows_at_once():
        found = list(tu.make_iterator(data, **settings))
    assert [list(own["name"]) for own in found] == [list(own["name"]) for own in expected]
    assert all(torch.equal(a["ids"].values(), b["ids"].values()) for a, b in zip(found, expected, strict=True))


def test_verls_own_is_back_after_an_error():
    before = tu.index_select_tensor_dict
    with pytest.raises(ValueError, match="inside"), rows_at_once():
        assert tu.index_select_tensor_dict is select_rows
        raise ValueError("inside")
    assert tu.index_select_tensor_dict is before
