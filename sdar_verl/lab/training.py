"""Supervised fitting of a small model on (prompt, answer) pairs; only answer tokens carry loss."""

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
    order = list(examples)
    dice.shuffle(order)
    cut: list[list[Example]] = []
    for start in range(0, len(order), batch_size * _POOL):
        pool = sorted(order[start : start + batch_size * _POOL], key=len)
        group = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        dice.shuffle(group)
        cut.extend(group)
    yield from cut


def answer_loss(model: PreTrainedModel, batch: Sequence[Example], pad: int) -> tuple[torch.Tensor, int]:
    """Summed cross-entropy (nats) of the answer tokens of `batch`, and their number.

    Rows are padded on the right, so causal attention needs no mask: nothing before the padding can see it.
    """
    width = max(map(len, batch))
    ids = torch.full((len(batch), width), pad)
    keep = torch.zeros(len(batch), width, dtype=torch.bool)
    for row, example in enumerate(batch):
        ids[row, : len(example)] = torch.tensor(example.prompt + example.answer)
        keep[row, len(example.prompt) : len(example)] = True
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state  # (B, T, hidden)
    logits = model.lm_head(hidden[:, :-1][keep[:, 1:]])  # (answer tokens, vocabulary)
    targets = ids[:, 1:][keep[:, 1:]]
    return cross_entropy(logits.float(), targets, reduction="sum"), len(targets)


def train(
    model: PreTrainedModel,
    examples: Sequence[Example],
    *,
    pad: int,
    epochs: int,
    batch_size: int,
    matrix_lr: float,
    other_lr: float,
    warmup: int,
    clip: float,
    seed: int,
    progress: Callable[[int, int, float], None],
) -> list[float]:
    """Fit `model` in place; returns the loss of every step (nats per answer token).

    Args:
        examples: what to learn.
        pad: token id that fills rows.
        epochs, batch_size: passes over `examples` and rows per step.
        matrix_lr, other_lr, warmup, clip: see `LabOptimizer`.
        seed: order of the examples.
        progress: called after every step with (steps done, steps in all, loss).
    """
    steps = epochs * -(-len(examples) // batch_size)
    optimizer = LabOptimizer(model, matrix_lr=matrix_lr, other_lr=other_lr, warmup=warmup, steps=steps, clip=clip)
    model.train()
    losses: list[float] = []
    for epoch in range(epochs):
        for batch in batches(examples, batch_size, seed * 1000 + epoch):
            total, count = answer_loss(model, batch, pad)
            loss = total / count
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            progress(len(losses), steps, losses[-1])
    return losses
