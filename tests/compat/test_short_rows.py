"""Rows of like length, aligned at their ends: the numbers and gradients of verl's own way, and every row once."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen2ForCausalLM
from verl.utils import tensordict_utils as tu
from verl.utils.torch_functional import logprobs_from_logits
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.engine.utils import prepare_micro_batches
from verl.workers.utils.padding import no_padding_2_padding

from sdar_verl.compat.cpu.short_rows import ShortRows, log_probs_from_logits, micro_batches, parts_by_length

LENGTHS = [(9, 3), (2, 1), (30, 7), (1, 1), (12, 12), (5, 2)]  # prompt and response
VOCABULARY = 50


class Stock(FSDPEngineWithLMHead):
    """verl's own way through a micro-batch, without its set-up."""

    def __init__(self):
        self.engine_config = SimpleNamespace(entropy_checkpointing=False)
        self.pad_to_length, self.use_ulysses_sp = None, False


class Short(ShortRows, Stock):
    """Ours."""


def nested(rows):
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def batch(lengths=LENGTHS, **settings):
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(VOCABULARY, (sum(own),), generator=generator) for own in lengths]
    fields = {
        "input_ids": nested(rows),
        "position_ids": nested([torch.arange(len(row)) for row in rows]),
        "prompts": nested([row[:prompt] for row, (prompt, _) in zip(rows, lengths, strict=True)]),
        "responses": nested([row[prompt:] for row, (prompt, _) in zip(rows, lengths, strict=True)]),
        "response_mask": nested([torch.ones(response) for _, response in lengths]),
        "number": torch.arange(len(rows)),
    }
    data = tu.get_tensordict(fields, {"use_remove_padding": False, "max_token_len_per_gpu": 8192, **settings})
    tu.assign_non_tensor_stack(data, "name", [f"row {number}" for number in range(len(rows))])
    return data


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
    )
    return Qwen2ForCausalLM(config).double()


def answered(data, width):
    """Where the padded responses hold tokens."""
    return torch.arange(width) < data["responses"].offsets().diff().unsqueeze(1)


def through(engine, model, data):
    """Log-probabilities and entropies of the responses, padded, and the gradient of a weighted sum of both."""
    inputs, outputs = engine.prepare_model_inputs(micro_batch=data)
    found = engine.prepare_model_outputs(model(**inputs, use_cache=False), outputs, data, None)
    values = {name: no_padding_2_padding(found[name], data) for name in ("log_probs", "entropy")}
    weights = torch.randn(values["log_probs"].shape, generator=torch.Generator().manual_seed(1))
    weights = weights * answered(data, weights.shape[1])
    model.zero_grad()
    ((values["log_probs"] + 0.3 * values["entropy"]) * weights).sum().backward()
    return values, {name: own.grad.clone() for name, own in model.named_parameters()}


@pytest.mark.parametrize("temperature", [1.0, 0.7, torch.tensor([0.5, 1.0, 2.0, 0.7, 1.5, 1.0])])
def test_numbers_and_gradients_are_those_of_verl(model, temperature):
    data = batch(temperature=temperature, calculate_entropy=True)
    stock, short = (through(engine(), model, data) for engine in (Stock, Short))
    mask = answered(data, stock[0]["log_probs"].shape[1])
    for name, values in stock[0].items():
        torch.testing.assert_close(short[0][name][mask], values[mask], rtol=1e-5, atol=1e-5)
        assert torch.isfinite(short[0][name]).all()
    for name, gradient in stock[1].items():
        torch.testing.assert_close(short[1][name], gradient, rtol=1e-4, atol=1e-5)


def test_logits_are_formed_where_tokens_were_sampled(model):
    data = batch(temperature=1.0)
    inputs, _ = Short().prepare_model_inputs(micro_batch=data)
    assert inputs["logits_to_keep"] == 13 and inputs["input_ids"].shape == (6, 37)
    for row, mask, ids in zip(inputs["input_ids"], inputs["attention_mask"], data["input_ids"].unbind(), strict=True):
        assert row[-len(ids) :].tolist() == ids.tolist() and mask.tolist() == [0] * (37 - len(ids)) + [1] * len(ids)


@pytest.mark.parametrize("flag", ["distillation_use_topk", "calculate_sum_pi_squared", "use_remove_padding"])
def test_what_needs_more_goes_verls_way(flag):
    data = batch(temperature=1.0, **{flag: True})
    (found, _), (expected, _) = (engine().prepare_model_inputs(micro_batch=data) for engine in (Short, Stock))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], own) for name, own in expected.items() if isinstance(own, torch.Tensor))


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 200))
def test_every_row_is_in_one_part(lengths, tokens):
    parts = parts_by_length(lengths, tokens)
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
    for part in parts:
        assert len(part) == 1 or len(part) * max(lengths[row] for row in part) <= tokens
    spans = [(min(own), max(own)) for part in parts if (own := [lengths[row] for row in part])]
    assert all(before[1] <= after[0] for before, after in zip(spans, spans[1:], strict=False))


def test_micro_batches_hold_the_rows_with_all_that_belongs_to_them(monkeypatch):
    monkeypatch.setattr("sdar_verl.compat.cpu.short_rows.TOKENS", 40)
    data = batch(temperature=0.7)
    parts, numbers = micro_batches(None, data, same_micro_num_in_dp=True)
    assert numbers == [[3, 1, 5], [0], [4], [2]] and [len(part) for part in parts] == [3, 1, 1, 1]
    for part, rows in zip(parts, numbers, strict=True):
        assert part["number"].tolist() == rows and list(part["name"]) == [f"row {row}" for row in rows]
        assert tu.get_non_tensor_data(part, "temperature", None) == 0.7
        for name in ("input_ids", "position_ids", "prompts", "responses", "response_mask"):
            rows_of = data[name].unbind()
            width = max(len(rows_of[row]) for row in rows)
            assert part[name].to_padded_tensor(0).shape == (len(rows), width)
            for found, row in zip(part[name].unbind(), rows, strict=True):
                assert torch.equal(found, rows_of[row])


def test_micro_batches_add_up_to_the_whole_batch(model, monkeypatch):
    monkeypatch.setattr("sdar_verl.compat.cpu.short_rows.TOKENS", 40)
    data = batch(temperature=0.7, calculate_entropy=True)
    whole = through(Short(), model, data)[0]
    for part, rows in zip(*micro_batches(None, data), strict=True):
        found = through(Short(), model, part)[0]
        for name, values in found.items():
            for own, row in zip(values, rows, strict=True):
                length = LENGTHS[row][1]
                torch.testing.assert_close(own[:length], whole[name][row, :length], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 2}, {"force_group_size": 2}]
)
def test_fixed_sizes_are_verls(settings):
    parts, numbers = micro_batches(prepare_micro_batches, batch(temperature=1.0, **settings))
    assert sum(len(part) for part in parts) == len(LENGTHS)
    assert numbers is None or numbers == [list(range(len(LENGTHS)))]


def test_a_row_that_is_too_long_is_refused_by_verl():
    with pytest.raises(AssertionError, match="max_token_len must be greater"):
        micro_batches(prepare_micro_batches, batch(temperature=1.0, max_token_len_per_gpu=20))


def test_log_probs_and_their_gradient_are_those_of_verl():
    torch.manual_seed(0)
    logits = 30 * torch.randn(50, 17, dtype=torch.float64)
    labels, weights = torch.randint(0, 17, (50,)), torch.randn(50, dtype=torch.float64)
    found = []
    for function in (log_probs_from_logits, logprobs_from_logits):
        leaf = logits.clone().requires_grad_()
        values = function(logits=leaf, labels=labels)
        (values * weights).sum().backward()
        found.append((values.detach(), leaf.grad))
    torch.testing.assert_close(found[0], found[1])
    assert found[0][0].shape == labels.shape
