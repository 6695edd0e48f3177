"""The teacher's distributions in the update itself: one forward pass under the privileged prompts per micro-batch."""

from __future__ import annotations

from typing import Any

import torch
from verl.utils import tensordict_utils as tu

from sdar_verl.core import DistillationConfig
from sdar_verl.core.distributions import distribution_divergence
from sdar_verl.errors import SdarError

TEACHER_PROMPTS = "teacher_prompts"


class TeacherForward:
    """Compares student and teacher on the sampled positions of a micro-batch, inside verl's forward step.

    Args:
        engine: verl's FSDP engine with the teacher's weights: the actor's own, or the reference model's.
        config: α, support and tail.
        policy: the actor's engine for a trust region (arXiv 2601.20802), else None: the teacher's logits are then
            ``(1 − mix)·z_engine + mix·z_policy``, both under the privileged prompts.
        mix: in (0, 1).
    """

    def __init__(self, engine: Any, config: DistillationConfig, policy: Any = None, mix: float = 0.0):
        self.engine, self.config, self.policy, self.mix = engine, config, policy, mix

    def divergence(self, student_logits: torch.Tensor, data: Any) -> torch.Tensor:
        """D_α at every position, ``(1, total tokens)``, 0 where nothing was sampled or is distilled.

        Args:
            student_logits: ``(1, total tokens, V)``, tempered, with gradient: the packed rows of the micro-batch.
            data: the micro-batch.
        """
        student = student_logits.squeeze(0)
        at = sampled_positions(data["prompts"], data["teacher_mask"])
        config = self.config
        found = distribution_divergence(
            student,
            self._teacher_logits(data),
            config.alpha,
            at=at,
            topk=config.topk if config.divergence == "topk" else None,
            support=config.topk_support,
            tail=config.topk_tail,
        )
        return torch.zeros(student.shape[0], device=found.device).index_put((at,), found).unsqueeze(0)

    @torch.no_grad()
    def _teacher_logits(self, data: Any) -> torch.Tensor:
        """Tempered logits before each sampled token under the privileged prompts, ``(sampled tokens, V)``."""
        if TEACHER_PROMPTS not in data:
            raise SdarError(f"the batch has no {TEACHER_PROMPTS}: the teacher was not scored")
        prompts = data[TEACHER_PROMPTS]
        rows = [torch.cat(pair) for pair in zip(prompts.unbind(), data["responses"].unbind(), strict=True)]
        batch = tu.get_tensordict(
            {
                "input_ids": nested(rows),
                "position_ids": nested([torch.arange(len(row), device=row.device) for row in rows]),
            },
            {
                "temperature": data["temperature"],
                "use_remove_padding": tu.get_non_tensor_data(data=data, key="use_remove_padding", default=True),
                "distillation_use_topk": True,  # so verl refuses what would move positions
            },
        )
        at = sampled_positions(prompts, data["teacher_mask"])
        logits = _forward(self.engine, batch, at)
        if self.policy is None:
            return logits
        # in float32: a small share of half-precision logits would be rounded away
        return logits.float().mul_(1 - self.mix).add_(_forward(self.policy, batch, at), alpha=self.mix)


def _forward(engine: Any, batch: Any, at: torch.Tensor) -> torch.Tensor:
    """Tempered logits ``(len(at), V)`` of `engine`'s model at the packed positions `at` alone, in evaluation mode.

    The prompts are most of the tokens here, and their logits would be most of the memory: they are never formed.
    """
    module = engine.module
    inputs, _ = engine.prepare_model_inputs(micro_batch=batch)
    starts = batch["input_ids"].offsets()
    row = torch.searchsorted(starts, at, right=True) - 1
    packed = inputs["input_ids"].shape[0] == 1
    column = at if packed else at - starts[row]
    kept, place = column.unique(return_inverse=True)
    training = module.training
    module.eval()
    try:
        logits = module(**inputs, use_cache=False, logits_to_keep=kept).logits
    finally:
        module.train(training)
    if logits.shape[1] != len(kept):  # a model that takes no notice of it
        logits = logits[:, kept]
    found = logits[torch.zeros_like(row) if packed else row, place]
    temperature = torch.as_tensor(batch["temperature"], device=found.device, dtype=found.dtype)  # as verl's division
    return found.div_(temperature.expand(len(starts) - 1)[row].unsqueeze(-1))


def sampled_positions(prompts: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """Indices into packed rows (prompt and response) of the positions whose next token was sampled, in order.

    Args:
        prompts: nested, one row a row.
        response_mask: nested, 1 on sampled tokens that count.
    """
    positions, start = [], 0
    for prompt, mask in zip(prompts.unbind(), response_mask.unbind(), strict=True):
        positions.append(mask.nonzero().squeeze(-1) + start + len(prompt) - 1)
        start += len(prompt) + len(mask)
    return torch.cat(positions)


def nested(rows: list[torch.Tensor]) -> torch.Tensor:
    """Rows of different lengths as verl packs them."""
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)
