"""The gap: how much more likely the privileged teacher finds a sampled token than the student does."""

from __future__ import annotations

import torch

from sdar_verl.core.tokens import Tokens


def token_gap(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Δ_t = sg[log π_T(y_t | s_t⁺) − log π_θ(y_t | s_t)], in nats, same shape as the inputs, no gradient."""
    return teacher.detach() - student.detach()


def as_tokens(student_log_probs: torch.Tensor, teacher_log_probs: torch.Tensor, response_mask: torch.Tensor) -> Tokens:
    """Check three ``(B, T)`` tensors and make them safe: zeros outside the mask *before* any arithmetic.

    A NaN or infinity outside the mask therefore changes neither values nor gradients. Half precision is computed in
    float32. Inside the mask every log-probability must be finite: a sampled token to which teacher or student gives
    probability zero has no finite gap, and clamping it would hide a broken teacher (wrong ids, wrong vocabulary).

    Raises:
        ValueError: shapes differ or are not ``(B, T)``, the mask holds something else than 0 and 1, or a
            log-probability inside the mask is NaN or infinite (the message says which and where first).
    """
    shapes = {tuple(t.shape) for t in (student_log_probs, teacher_log_probs, response_mask)}
    if len(shapes) != 1 or student_log_probs.dim() != 2:
        raise ValueError(
            "student_log_probs, teacher_log_probs and response_mask must share one shape (B, T), got "
            f"{tuple(student_log_probs.shape)}, {tuple(teacher_log_probs.shape)}, {tuple(response_mask.shape)}"
        )
    mask = response_mask.bool()
    binary = ((response_mask == 0) | (response_mask == 1)).all()
    finite_student = torch.isfinite(student_log_probs) | ~mask
    finite_teacher = torch.isfinite(teacher_log_probs) | ~mask
    checks = torch.stack([binary, finite_student.all(), finite_teacher.all()]).tolist()
    if not checks[0]:
        raise ValueError("response_mask must hold only 0 and 1 (1 = a response token)")
    for name, values, finite, fine in (
        ("student_log_probs", student_log_probs, finite_student, checks[1]),
        ("teacher_log_probs", teacher_log_probs, finite_teacher, checks[2]),
    ):
        if not fine:
            row, column = (~finite).nonzero()[0].tolist()
            raise ValueError(
                f"{name} has {int((~finite).sum())} values on response tokens that are not finite, first "
                f"{values[row, column].item()} at row {row}, token {column}; check that teacher and student score "
                "the same response ids with the same vocabulary, and that no logits are masked out"
            )
    student = _safe(student_log_probs, mask)
    teacher = _safe(teacher_log_probs.detach(), mask)
    return Tokens(student=student, teacher=teacher, gap=token_gap(student, teacher), mask=mask)


def _safe(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    return torch.where(mask, values, torch.zeros_like(values))
