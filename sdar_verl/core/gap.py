"""The gap: how much more likely the privileged teacher finds a sampled token than the student does."""

from __future__ import annotations

import torch

from sdar_verl.core.tokens import Tokens


def token_gap(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Δ_t = sg[log π_T(y_t | s_t⁺) − log π_θ(y_t | s_t)], in nats, same shape as the inputs, no gradient."""
    return teacher.detach() - student.detach()


def as_tokens(
    student_log_probs: torch.Tensor,
    teacher_log_probs: torch.Tensor,
    response_mask: torch.Tensor,
    *,
    entropy: torch.Tensor | None = None,
    old_log_probs: torch.Tensor | None = None,
    distribution: torch.Tensor | None = None,
) -> Tokens:
    """Check ``(B, T)`` tensors and make them safe: zeros outside the mask *before* any arithmetic.

    A NaN or infinity outside the mask therefore changes neither values nor gradients. Half precision is computed in
    float32. Inside the mask every log-probability must be finite: a sampled token to which teacher or student gives
    probability zero has no finite gap, and clamping it would hide a broken teacher (wrong ids, wrong vocabulary).

    Raises:
        ValueError: shapes differ or are not ``(B, T)``, the mask holds something else than 0 and 1, or a
            log-probability inside the mask is NaN or infinite (the message says which and where first).
    """
    values = {"student_log_probs": student_log_probs, "teacher_log_probs": teacher_log_probs}
    values |= {"entropy": entropy} if entropy is not None else {}
    values |= {"old_log_probs": old_log_probs} if old_log_probs is not None else {}
    values |= {"distribution": distribution} if distribution is not None else {}
    shapes = {name: tuple(tensor.shape) for name, tensor in {**values, "response_mask": response_mask}.items()}
    if len(set(shapes.values())) != 1 or response_mask.dim() != 2:
        raise ValueError(f"{', '.join(shapes)} must share one shape (B, T), got {', '.join(map(str, shapes.values()))}")
    mask = response_mask.bool()
    finite = {name: torch.isfinite(tensor) | ~mask for name, tensor in values.items()}
    binary = ((response_mask == 0) | (response_mask == 1)).all()
    checks = torch.stack([binary, *(good.all() for good in finite.values())]).tolist()
    if not checks[0]:
        raise ValueError("response_mask must hold only 0 and 1 (1 = a response token)")
    for (name, good), fine in zip(finite.items(), checks[1:], strict=True):
        if not fine:
            row, column = (~good).nonzero()[0].tolist()
            raise ValueError(
                f"{name} has {int((~good).sum())} values on response tokens that are not finite, first "
                f"{values[name][row, column].item()} at row {row}, token {column}; check that teacher and student "
                "score the same response ids with the same vocabulary, and that no logits are masked out"
            )
    student = _safe(student_log_probs, mask)
    teacher = _safe(teacher_log_probs.detach(), mask)
    return Tokens(
        student=student,
        teacher=teacher,
        gap=token_gap(student, teacher),
        mask=mask,
        entropy=None if entropy is None else _safe(entropy.detach(), mask),
        old=None if old_log_probs is None else _safe(old_log_probs.detach(), mask),
        distribution=None if distribution is None else _safe(distribution, mask),
    )


def _safe(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    return torch.where(mask, values, torch.zeros_like(values))
