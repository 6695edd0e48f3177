"""Supervised fitting of a small model on (prompt, answer) pairs.

The answer's tokens carry the loss. The prompt's own tokens carry a small one beside it: a prompt repeats the names of
places and things, and predicting it teaches the model to copy, which every answer needs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from sdar_verl.lab.optimizer import LabOptimizer

_POOL = 32  # batches whose examples are sorted by length together


@dataclass(frozen=True)
class Example:
    """Token ids of one `prompt` and of the `answer` to learn, the end token included."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


def batches(examples: Sequence[Example], batch_size: int, seed: int) -> Iterator[list[Example]]:
    """Each example once, in batches of `batch_size` of similar length (the last may be smaller), shuffled by `seed`."""
    dice = random.Random(seed)
    order = list(range(len(examples)))
    dice.shuffle(order)
    for start in range(0, len(order), batch_size * _POOL):
        pool = sorted((examples[i] for i in order[start : start + batch_size * _POOL]), key=len)
        group = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        dice.shuffle(group)
        yield from group


def losses(model: PreTrainedModel, batch: Sequence[Example], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy (nats a token) of the answers of `batch`, and of a quarter of its prompts' tokens.

    A quarter, another one in each row, says as much about the prompts for less arithmetic: scores over the vocabulary
    are dear at this size.

    Rows are padded on the right, so causal attention needs no mask: nothing before the padding can see it.
    """
    width = max(map(len, batch))
    ids = torch.full((len(batch), width), pad)
    answer = torch.zeros(len(batch), width, dtype=torch.bool)
    prompt = torch.zeros_like(answer)
    for row, example in enumerate(batch):
        ids[row, : len(example)] = torch.tensor(example.prompt + example.answer)
        prompt[row, row % 4 : len(example.prompt) : 4] = True
        answer[row, len(example.prompt) : len(example)] = True
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]  # (B, T - 1, hidden)
    targets = ids[:, 1:]
    of_answers, of_prompts = (
        cross_entropy(model.lm_head(hidden[keep[:, 1:]]).float(), targets[keep[:, 1:]]) for keep in (answer, prompt)
    )
    return of_answers, of_prompts


def train(
    model: PreTrainedModel,
    stages: Sequence[Sequence[Example]],
    *,
    pad: int,
    batch_size: int,
    prompt_loss: float,
    matrix_lr: float,
    other_lr: float,
    warmup: int,
    clip: float,
    seed: int,
    progress: Callable[[int, int, float], None],
    only: int | None = None,
) -> list[float]:
    """Fit `model` in place; returns the answers' loss of every step (nats a token).

    Args:
        stages: what to learn, one pass over each stage after the other, under one learning rate schedule.
        pad: token id that fills rows.
        batch_size: rows per step.
        prompt_loss: weight of the prompts' loss beside the answers'.
        matrix_lr, other_lr, warmup, clip: see `LabOptimizer`.
        seed: order of the examples within each stage.
        progress: called after every step with (steps done, steps in all, loss).
        only: stop after this many steps of the same schedule; None makes all.
    """
    steps = sum(-(-len(stage) // batch_size) for stage in stages)
    optimizer = LabOptimizer(model, matrix_lr=matrix_lr, other_lr=other_lr, warmup=warmup, steps=steps, clip=clip)
    model.train()
    history: list[float] = []
    for number, stage in enumerate(stages):
        for batch in batches(stage, batch_size, seed * 1000 + number):
            of_answers, of_prompts = losses(model, batch, pad)
            (of_answers + prompt_loss * of_prompts).backward()
            optimizer.step()
            history.append(of_answers.item())
            progress(len(history), steps, history[-1])
            if len(history) == only:
                return history
    return history
