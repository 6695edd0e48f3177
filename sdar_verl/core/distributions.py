"""Divergences between the whole next-token distributions of student and teacher, or between their likeliest tokens."""

from __future__ import annotations

import torch
from torch.utils.checkpoint import checkpoint

SUPPORTS = ("student", "teacher", "union")
TAILS = ("bucket", "renormalise")
_NO_MASS = -1e4
CHUNK = 512  # rows whose float32 log-probabilities are held at a time


def distribution_divergence(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    alpha: float,
    *,
    topk: int | None = None,
    support: str = "teacher",
    tail: str = "bucket",
    chunk: int = CHUNK,
) -> torch.Tensor:
    """D_α(S, T) of each row, ``(N,)`` in nats, float32 (float64 for such logits), with gradient to the student alone.

    ======  ==========================================================================================
    α = 0   KL(T ‖ S), forward
    α = 1   KL(S ‖ T), reverse
    else    (1 − α)·KL(S ‖ M) + α·KL(T ‖ M) with M = (1 − α)·S + α·T (generalised Jensen–Shannon)
    ======  ==========================================================================================

    The value jumps at the ends: as α → 0 or 1 the middle form goes to 0, and over α(1 − α) to the form at that end.

    Args:
        student_logits: ``(N, V)``, tempered, with gradient.
        teacher_logits: ``(N, V)``, tempered likewise.
        alpha: in [0, 1]; TRL's ``distillation_alpha``.
        topk: None takes the whole vocabulary; else the k likeliest tokens of `support`.
        support: whose likeliest tokens: ``student``, ``teacher`` or ``union`` of both.
        tail: what becomes of the rest of the mass: ``bucket`` counts it as one more token, ``renormalise`` drops it
            and scales the others up. Without the bucket a reverse KL on the teacher's tokens has no force against
            mass that the student puts elsewhere.
        chunk: rows computed at a time; their log-probabilities are made again in the backward pass, so that no more
            than a chunk of them is ever held beside the logits.

    Raises:
        ValueError: shapes differ, α or k out of range, an unknown support or tail.
    """
    if student_logits.shape != teacher_logits.shape or student_logits.dim() != 2:
        raise ValueError(
            f"student and teacher logits must share one shape (N, V), got {tuple(student_logits.shape)} and "
            f"{tuple(teacher_logits.shape)}; do the two have the same vocabulary?"
        )
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1], got {alpha!r}")
    if support not in SUPPORTS or tail not in TAILS:
        raise ValueError(f"known supports: {', '.join(SUPPORTS)}; known tails: {', '.join(TAILS)}")
    if topk is not None and not 1 <= topk <= student_logits.shape[1]:
        raise ValueError(f"topk must lie between 1 and the vocabulary of {student_logits.shape[1]}, got {topk!r}")
    teacher_logits = teacher_logits.detach()

    def rows(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        log_s, log_t = _full_precision(student).log_softmax(-1), _full_precision(teacher).log_softmax(-1)
        if topk is not None:
            log_s, log_t = _restrict(log_s, log_t, topk, support, tail)
        return _divergence(log_s, log_t, alpha)

    parts = [
        checkpoint(rows, s, t, use_reentrant=False)
        for s, t in zip(student_logits.split(chunk), teacher_logits.split(chunk), strict=True)
    ]
    return torch.cat(parts)


def _full_precision(values: torch.Tensor) -> torch.Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _divergence(log_s: torch.Tensor, log_t: torch.Tensor, alpha: float) -> torch.Tensor:
    if alpha == 0:
        return _kl(log_t, log_s)
    if alpha == 1:
        return _kl(log_s, log_t)
    weights = torch.log(torch.tensor([1 - alpha, alpha], dtype=log_s.dtype, device=log_s.device))
    absent = torch.isneginf(log_s) & torch.isneginf(log_t)  # counted by neither KL; its log-sum would have no gradient
    log_m = torch.logaddexp(torch.where(absent, 0.0, log_s) + weights[0], torch.where(absent, 0.0, log_t) + weights[1])
    return (1 - alpha) * _kl(log_s, log_m) + alpha * _kl(log_t, log_m)


def _kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """KL(P ‖ Q) of each row; a token that P gives no mass counts 0, whatever Q says."""
    there = log_p > -torch.inf
    gap = torch.where(there, log_p, 0.0) - torch.where(there, log_q, 0.0)
    return (torch.where(there, log_p, 0.0).exp() * there * gap).sum(-1)


def _restrict(
    log_s: torch.Tensor, log_t: torch.Tensor, k: int, support: str, tail: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both distributions on the chosen tokens, each ``(N, k + 1)`` (2k + 1 for the union); absent places are −inf."""
    with torch.no_grad():
        chosen = {"student": [log_s], "teacher": [log_t], "union": [log_s, log_t]}[support]
        ids = torch.cat([values.topk(k, dim=-1).indices for values in chosen], dim=-1)
        repeated = torch.zeros_like(ids, dtype=torch.bool)
        if support == "union":
            repeated[:, k:] = (ids[:, k:, None] == ids[:, None, :k]).any(-1)
    return tuple(_on(values, ids, repeated, tail) for values in (log_s, log_t))


def _on(values: torch.Tensor, ids: torch.Tensor, repeated: torch.Tensor, tail: str) -> torch.Tensor:
    kept = values.gather(-1, ids).masked_fill(repeated, -torch.inf)
    if tail == "renormalise":
        return kept - kept.logsumexp(-1, keepdim=True)
    # summed over the others, not 1 - mass, which cancels; the floor is finite for rows whose tokens are all chosen
    rest = values.scatter(-1, ids, _NO_MASS).logsumexp(-1, keepdim=True)
    return torch.cat([kept, rest], dim=-1)
