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
    at: torch.Tensor | None = None,
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
        student_logits: ``(M, V)``, tempered, with gradient.
        teacher_logits: ``(N, V)``, tempered likewise.
        at: ``(N,)``, ascending: the student's rows that the teacher's stand beside; None for all, M = N. Nothing is
            copied out of `student_logits` for longer than a chunk.
        alpha: in [0, 1]; TRL's ``distillation_alpha``.
        topk: None takes the whole vocabulary; else the k likeliest tokens of `support`.
        support: whose likeliest tokens: ``student``, ``teacher`` or ``union`` of both.
        tail: what becomes of the rest of the mass: ``bucket`` counts it as one more token, ``renormalise`` drops it
            and scales the others up. Without the bucket a reverse KL on the teacher's tokens has no force against
            mass that the student puts elsewhere.
        chunk: rows computed at a time; their log-probabilities are made again in the backward pass, so that no more
            than a chunk of them is ever held. With `topk` nothing of `teacher_logits` is kept for the backward pass but
            k + 1 numbers a row (2k + 1 for the union); whole distributions keep all of it until then.

    Raises:
        ValueError: shapes do not fit, `at` is not ascending, α or k out of range, an unknown support or tail.
    """
    if student_logits.dim() != 2 or teacher_logits.dim() != 2 or student_logits.shape[1] != teacher_logits.shape[1]:
        raise ValueError(
            f"logits must be (M, V) and (N, V), got {tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}; "
            "do the two have the same vocabulary?"
        )
    rows = torch.arange(len(student_logits), device=student_logits.device) if at is None else at
    if rows.shape != teacher_logits.shape[:1]:
        raise ValueError(f"{len(teacher_logits)} rows of the teacher stand beside {len(rows)} of the student")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1], got {alpha!r}")
    if support not in SUPPORTS or tail not in TAILS:
        raise ValueError(f"known supports: {', '.join(SUPPORTS)}; known tails: {', '.join(TAILS)}")
    if topk is not None and not 1 <= topk <= student_logits.shape[1]:
        raise ValueError(f"topk must lie between 1 and the vocabulary of {student_logits.shape[1]}, got {topk!r}")
    if at is not None and len(at) and not bool((at.diff() > 0).all() & (at[0] >= 0) & (at[-1] < len(student_logits))):
        raise ValueError("`at` must name rows of student_logits in ascending order, each once")
    starts = torch.arange(0, len(student_logits) + chunk, chunk, device=rows.device)
    bounds = torch.searchsorted(rows, starts).tolist()
    parts = [student_logits[:0].float().sum(-1)]  # so that the result has a gradient even with no row at all
    for part, start, first, last in zip(
        student_logits.split(chunk), starts.tolist(), bounds[:-1], bounds[1:], strict=False
    ):
        if first == last:
            continue
        compare = _Comparison(rows[first:last] - start, teacher_logits[first:last].detach(), alpha, topk, support, tail)
        parts.append(checkpoint(compare, part, use_reentrant=False))
    return torch.cat([value.to(parts[-1].dtype) for value in parts])


class _Comparison:
    """The divergences of one chunk as a function of the student's part of it.

    It is called twice, in the forward pass and again in the backward pass. Tokens are chosen once: what is kept until
    then of the teacher's logits is their log-probabilities on the chosen tokens.
    """

    def __init__(
        self, own: torch.Tensor, teacher: torch.Tensor, alpha: float, topk: int | None, support: str, tail: str
    ):
        self.own, self.alpha, self.topk, self.support, self.tail = own, alpha, topk, support, tail
        self.teacher: torch.Tensor | None = teacher
        self.chosen: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def __call__(self, student: torch.Tensor) -> torch.Tensor:
        log_s = _full_precision(student[self.own]).log_softmax(-1)
        if self.topk is None:
            return _divergence(log_s, _full_precision(self.teacher).log_softmax(-1), self.alpha)
        if self.chosen is None:
            log_t = _full_precision(self.teacher).log_softmax(-1)
            ids, repeated = _choose(log_s.detach(), log_t, self.topk, self.support)
            self.chosen, self.teacher = (ids, repeated, _on(log_t, ids, repeated, self.tail)), None
        ids, repeated, log_t = self.chosen
        return _divergence(_on(log_s, ids, repeated, self.tail), log_t, self.alpha)


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


@torch.no_grad()
def _choose(log_s: torch.Tensor, log_t: torch.Tensor, k: int, support: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of the chosen tokens, ``(N, k)`` (2k for the union), and which of them repeat an earlier one."""
    chosen = {"student": [log_s], "teacher": [log_t], "union": [log_s, log_t]}[support]
    ids = torch.cat([values.topk(k, dim=-1).indices for values in chosen], dim=-1)
    repeated = torch.zeros_like(ids, dtype=torch.bool)
    if support == "union":
        repeated[:, k:] = (ids[:, k:, None] == ids[:, None, :k]).any(-1)
    return ids, repeated


def _on(values: torch.Tensor, ids: torch.Tensor, repeated: torch.Tensor, tail: str) -> torch.Tensor:
    """A distribution on the chosen tokens, ``(N, k + 1)`` with a bucket for the rest; repeated places are −inf."""
    kept = values.gather(-1, ids).masked_fill(repeated, -torch.inf)
    if tail == "renormalise":
        return kept - kept.logsumexp(-1, keepdim=True)
    # summed over the others, not 1 - mass, which cancels; the floor is finite for rows whose tokens are all chosen
    rest = values.scatter(-1, ids, _NO_MASS).logsumexp(-1, keepdim=True)
    return torch.cat([kept, rest], dim=-1)
