"""The model's shape, its answers, and that batching changes nothing."""

import pytest
import torch

from sdar_verl.lab.model import build_model
from sdar_verl.lab.policy import Policy
from sdar_verl.lab.tokenizer import train_tokenizer

SHAPE = dict(hidden=64, layers=2, heads=2, kv_heads=1, ffn=96, max_positions=128, seed=3)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["go to cabinet 1 and take the apple 2 from it"] * 4, 290)


@pytest.fixture(scope="module")
def model(tokenizer):
    return build_model(tokenizer, **SHAPE)


def test_vocabulary_is_the_tokenizers(model, tokenizer):
    assert model.config.vocab_size == len(tokenizer) == model.get_input_embeddings().num_embeddings
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_seeded_without_touching_the_global_state(tokenizer):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    one, two = build_model(tokenizer, **SHAPE), build_model(tokenizer, **SHAPE)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_head_sizes_without_a_kernel_are_refused(tokenizer):
    with pytest.raises(ValueError, match="48 / 2"):
        build_model(tokenizer, **{**SHAPE, "hidden": 48})


def test_batched_greedy_answers_equal_those_of_one_prompt(model, tokenizer):
    prompts = [tokenizer(text).input_ids for text in ("go", "take the apple 2 from it", "cabinet 1")]
    policy = Policy(model, tokenizer, max_tokens=6, temperature=0)
    together = policy.answer(prompts)
    assert together == [policy.answer([prompt])[0] for prompt in prompts]
    for prompt, answer in zip(prompts, together, strict=True):
        ids = torch.tensor([prompt])
        full = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
        assert answer == full[0, len(prompt) :].tolist()


def test_sampling_follows_the_softmax(model, tokenizer):
    prompt = tokenizer("go").input_ids
    with torch.no_grad():
        chances = torch.softmax(4 * model(torch.tensor([prompt])).logits[0, -1], -1)
    policy = Policy(model, tokenizer, max_tokens=1, temperature=0.25, seed=1)
    drawn = torch.tensor(policy.answer([prompt] * 20_000)).flatten()
    seen = torch.bincount(drawn, minlength=len(tokenizer)) / len(drawn)
    assert float((seen - chances).abs().sum()) < 0.12
    assert float((chances - 1 / len(tokenizer)).abs().sum()) > 0.25  # so a uniform draw would fail


def test_answers_stop_at_the_end_token(model, tokenizer):
    end = tokenizer.eos_token_id
    answers = Policy(model, tokenizer, max_tokens=40, seed=0).answer([tokenizer("go").input_ids] * 200)
    stopped = [answer for answer in answers if end in answer]
    assert stopped and all(answer.index(end) == len(answer) - 1 for answer in stopped)


def test_negative_temperature_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match="temperature"):
        Policy(model, tokenizer, max_tokens=1, temperature=-1.0)
