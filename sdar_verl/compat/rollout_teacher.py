"""The rollout engine as teacher: it scores a finished episode's privileged prompts while others still play.

Student and teacher are then compared within one engine: what travels is the gap between its score of the response
under the privileged prompt and the log-probabilities with which it sampled that response. The trainer's engine computes
the student's a third time; taking the gap from there would add the two engines' difference to every token.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import torch

from sdar_verl.agent.rows import Row
from sdar_verl.compat import rows as stored
from sdar_verl.compat.teacher_scoring import ScoredRow, Scorer, Scores
from sdar_verl.errors import SdarError

GAP = "engine_gap"  # in a row's extra fields: nats for each token of its response, 0 where nothing was sampled
SECONDS = "engine_seconds"
SAMPLING = {"max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 0, "logprobs": False}  # one token is the least

Prefill = Callable[[list[int], dict[str, Any]], Awaitable[Any]]  # (token ids, sampling parameters) -> verl's output


async def engine_gaps(rows: Sequence[Row], prefill: Prefill, weights_step: int) -> tuple[list[list[float]], float]:
    """The gaps of an episode's rows, and the seconds that took.

    Args:
        rows: with privileged prompts and rollout log-probabilities.
        prefill: the engine.
        weights_step: training step whose weights have to score, as they sampled.

    Raises:
        SdarError: the engine scored other tokens, with other weights, or not at all.
    """
    started = time.monotonic()
    found = await asyncio.gather(*(_gap(row, prefill, weights_step) for row in rows))
    return list(found), time.monotonic() - started


async def _gap(row: Row, prefill: Prefill, weights_step: int) -> list[float]:
    if row.log_probs is None:
        raise SdarError("the rollout gave no log-probabilities: set actor_rollout_ref.rollout.calculate_log_probs=true")
    ids = [*row.teacher_prompt_ids, *row.response_ids]
    output = await prefill(ids, dict(SAMPLING))
    extra = output.extra_fields
    if not output.token_ids or "prompt_logprobs" not in extra:
        raise SdarError(f"the rollout engine scored nothing (stop reason {output.stop_reason!r})")
    # verl gives each place the token after it, and the last place a filler
    scored, values = [entry[0] for entry in extra["prompt_ids"][:-1]], [e[0] for e in extra["prompt_logprobs"][:-1]]
    if scored != ids[1:] or len(values) != len(scored):
        raise SdarError("the rollout engine scored other tokens than it was sent; this is a bug, please report it")
    steps = {weights_step, *row.weights_steps, extra.get("global_steps", weights_step)}
    if len(steps) > 1:
        raise SdarError(f"weights of several steps sampled and scored one row: {sorted(steps)}")
    teacher = values[len(row.teacher_prompt_ids) - 1 :]
    columns = zip(teacher, row.log_probs, row.response_mask, strict=True)
    return [one - other if sampled else 0.0 for one, other, sampled in columns]


def by_rollout(batch: Any) -> Scorer:
    """A scorer that hands over the gaps in `batch`, on top of the log-probabilities before the update."""

    def scorer(rows: Sequence[ScoredRow]) -> Scores:
        data = stored.read(batch, ["extra_fields", "old_log_probs"])
        extras, old = stored.objects(data, "extra_fields"), data["old_log_probs"].unbind()
        log_probs, seconds = [], {}
        for key, tag, row, extra, student in zip(batch.keys, batch.tags, rows, extras, old, strict=True):
            if stored.is_padding(tag):
                log_probs.append(torch.zeros(len(row.response)))
                continue
            gap = extra.get(GAP)
            if gap is None or len(gap) != len(row.response):
                raise SdarError(f"row {key} has no score of the rollout engine; this is a bug, please report it")
            gap = torch.tensor(gap, dtype=torch.float32)
            log_probs.append(student.float() + gap)
            seconds[key.rpartition("_")[0]] = extra[SECONDS]
        return Scores(log_probs, {"sdar/teacher_rollout/episode_seconds": sum(seconds.values()) / len(seconds)})

    return scorer
