"""Losses against a plain oracle, batches that hold every example once, a fit that learns the same each time."""

import math

import pytest
import torch
from torch.nn.functional import log_softmax

from sdar_verl.lab.model import build_model
from sdar_verl.lab.optimizer import LabOptimizer
from sdar_verl.lab.tokenizer import train_tokenizer
from sdar_verl.lab.training import Example, batches, losses, train

SHAPE = dict(hidden=64, layers=2, heads=2, kv_heads=1, ffn=96, max_positions=128, seed=3)
SETTINGS = dict(batch_size=4, prompt_loss=0.3, matrix_lr=0.02, other_lr=3e-3, warmup=2, clip=1.0, seed=0)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["go to cabinet 1 and take the apple 2 from it"] * 4, 290)


@pytest.fixture
def examples(tokenizer):
    pairs = [("cabinet", "go to cabinet"), ("apple 2", "take the apple 2"), ("it", "and"), ("1 and 2", "from it")]
    return [Example(tuple(tokenizer(p).input_ids), tuple(tokenizer(a).input_ids)) for p, a in pairs * 3]


def test_losses_are_mean_log_likelihoods_of_answers_and_a_quarter_of_the_prompts(tokenizer, examples):
    model = build_model(tokenizer, **SHAPE)
    answers, prompts = [], []
    for row, example in enumerate(examples[:4]):
        ids = [*example.prompt, *example.answer]
        scores = log_softmax(model(torch.tensor([ids])).logits[0].detach(), -1)
        costs = {place: -scores[place - 1, token].item() for place, token in enumerate(ids) if place}
        start = len(example.prompt)
        prompts += [cost for place, cost in costs.items() if place < start and place % 4 == row % 4]
        answers += [cost for place, cost in costs.items() if place >= start]
    of_answers, of_prompts = losses(model, examples[:4], tokenizer.pad_token_id)
    assert math.isclose(of_answers.item(), sum(answers) / len(answers), rel_tol=1e-5)
    assert math.isclose(of_prompts.item(), sum(prompts) / len(prompts), rel_tol=1e-5)


def test_batches_hold_each_example_once_and_follow_the_seed(examples):
    numbered = [Example((n,) * (1 + n % 5), (n,)) for n in range(100)]
    cut = list(batches(numbered, 8, seed=1))
    assert sorted(example.answer[0] for batch in cut for example in batch) == list(range(100))
    assert cut == list(batches(numbered, 8, seed=1)) != list(batches(numbered, 8, seed=2))
    assert max(map(len, cut)) == 8


def test_fitting_lowers_the_loss_and_repeats_exactly(tokenizer, examples):
    def fitted():
        model, calls = build_model(tokenizer, **SHAPE), []
        stages = [examples * 12, examples * 8]
        history = train(model, stages, pad=tokenizer.pad_token_id, progress=lambda *a: calls.append(a), **SETTINGS)
        return model, history, calls

    (model, history, calls), (again, history_again, _) = fitted(), fitted()
    assert history == history_again
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert history[0] > 5 and history[-1] < 0.5 * history[0]
    assert [call[:2] for call in calls] == [(step, 60) for step in range(1, 61)]


def test_schedule_warms_up_and_comes_down_to_a_tenth(tokenizer):
    model = build_model(tokenizer, **SHAPE)
    optimizer = LabOptimizer(model, matrix_lr=0.02, other_lr=1e-3, warmup=4, steps=20, clip=1.0)
    scales = []
    for _ in range(21):
        scales.append(optimizer.scale)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    assert scales[:4] == [0.25, 0.5, 0.75, 1.0]
    assert scales[4:] == sorted(scales[4:], reverse=True)
    assert math.isclose(scales[-1], 0.1)


def test_every_parameter_is_trained_once(tokenizer):
    model = build_model(tokenizer, **SHAPE)
    optimizer = LabOptimizer(model, matrix_lr=0.02, other_lr=1e-3, warmup=1, steps=2, clip=1.0)
    held = [id(p) for part in optimizer._parts for group in part.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
