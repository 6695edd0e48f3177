"""What is asked of vLLM's OpenAI-compatible server for a score, and the strict reading of its answer.

The server returns the log-probabilities of a given prompt's tokens (``prompt_logprobs``). They come from the model's
own distribution: neither temperature nor any other sampling setting of request or server changes them, so they compare
with a student sampled and trained at temperature 1 alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdar_verl.teacher.errors import TeacherRejected

CLAMPED = -9999.0  # what the server writes for minus infinity
_ROUNDING = 1e-4  # nats that a log-probability may lie above 0; logits, which some servers can return, lie further


@dataclass(frozen=True)
class ScoreRow:
    """Token ids of a privileged prompt (not empty) and of the response whose tokens are scored after it."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("the first token of a sequence has no log-probability: a prompt must not be empty")

    @property
    def ids(self) -> list[int]:
        """Prompt and response."""
        return [*self.prompt, *self.response]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)


def request_body(model: str, row: ScoreRow) -> dict[str, Any]:
    """The body for ``POST /v1/completions``: one token is generated, because the server refuses none, and ignored."""
    return {
        "model": model,
        "prompt": row.ids,
        "max_tokens": 1,
        "temperature": 0.0,
        "prompt_logprobs": 0,
        "return_token_ids": True,
        "add_special_tokens": False,
    }


def read_scores(answer: Any, model: str, row: ScoreRow) -> list[float]:
    """Log-probabilities (nats) of the response's tokens, in order; minus infinity where the server says so.

    Args:
        answer: the decoded JSON of the server.
        model: the name that was asked for.
        row: what was sent.

    Raises:
        TeacherRejected: the answer is of another model, of other token ids at any place, too short or too long, or
            holds something that is no log-probability.
    """
    if not isinstance(answer, Mapping):
        raise TeacherRejected("the answer is no JSON object")
    if answer.get("model") != model:
        raise TeacherRejected(f"the answer comes from model {answer.get('model')!r}, asked was {model!r}")
    choices = answer.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], Mapping):
        raise TeacherRejected("the answer does not hold exactly one choice")
    ids, sent = choices[0].get("prompt_token_ids"), row.ids
    if ids != sent:
        raise TeacherRejected(f"the server scored other token ids than it was sent: {_difference(ids, sent)}")
    values = choices[0].get("prompt_logprobs")
    if not isinstance(values, list) or len(values) != len(sent):
        found = len(values) if isinstance(values, list) else "none"
        raise TeacherRejected(f"{len(sent)} tokens were sent, and {found} have log-probabilities")
    return [_log_prob(values[at], sent[at], at) for at in range(len(row.prompt), len(sent))]


def _log_prob(entry: Any, token: int, at: int) -> float:
    found = entry.get(str(token)) if isinstance(entry, Mapping) else None
    value = found.get("logprob") if isinstance(found, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise TeacherRejected(f"token {token} at place {at} has no log-probability")
    if value > _ROUNDING:
        raise TeacherRejected(
            f"token {token} at place {at} has the log-probability {value:g}, above 0; was the server started with a "
            "--logprobs-mode of logits?"
        )
    return -math.inf if value <= CLAMPED else min(0.0, float(value))


def _difference(found: Any, sent: Sequence[int]) -> str:
    if not isinstance(found, list):
        return "it returned none"
    if len(found) != len(sent):
        return f"{len(found)} instead of {len(sent)}"
    at = next(number for number, pair in enumerate(zip(found, sent, strict=True)) if pair[0] != pair[1])
    return f"{found[at]!r} instead of {sent[at]} at place {at}"
