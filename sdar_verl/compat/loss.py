"""The loss hook: verl's ``ppo_loss`` plus the gated distillation term, in verl's actor workers."""

from __future__ import annotations

from typing import Any

import torch
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

from sdar_verl.compat.teacher_forward import TeacherForward
from sdar_verl.core import DistillationConfig, distillation_loss, flatten
from sdar_verl.errors import SdarError

COEF_KEY = "sdar_coef"  # λ of the step, handed over with every batch
GATE_MEAN_KEY = "sdar_gate_mean"  # mean gate of the step, likewise, where the baseline needs it
TEACHER_FIELD = "teacher_log_probs"
TEACHER_MASK = "teacher_mask"  # 1 on the response tokens that are distilled
DIVERGENCE = "sdar_divergence"  # of the distributions, at every position, among the model's outputs


class SdarLoss:
    """The loss function of an actor worker; verl also asks it for what it needs of the logits.

    Args:
        config: verl's ``ActorConfig``.
        distillation: the term's settings.
        frozen: the teacher has the reference model's weights, not the actor's.
        trust_region: share of the actor's logits in those of a frozen teacher; None for none.
    """

    def __init__(self, config: Any, distillation: DistillationConfig, frozen: bool, trust_region: float | None = None):
        self.config, self.distillation, self.frozen, self.trust_region = config, distillation, frozen, trust_region
        self._teacher: TeacherForward | None = None

    @property
    def needs_logits(self) -> bool:
        return "distribution" in self.distillation.needs

    def bind(self, actor: Any, ref: Any) -> None:
        """Called once in the worker, with its engines."""
        if not self.needs_logits:
            return
        mixed = {} if self.trust_region is None else {"policy": actor, "mix": self.trust_region}
        self._teacher = TeacherForward(ref if self.frozen else actor, self.distillation, **mixed)

    def __call__(
        self, model_output: Any = None, data: Any = None, dp_group: Any = None, student_logits: Any = None
    ) -> Any:
        if student_logits is not None:
            return {DIVERGENCE: self._teacher.divergence(student_logits, data)}
        return sdar_loss(self.config, model_output, data, dp_group, distillation=self.distillation)


def sdar_loss(
    config: Any, model_output: Any, data: Any, dp_group: Any = None, *, distillation: DistillationConfig
) -> tuple[Any, dict[str, Any]]:
    """``RL + λ · Agg(gate · distillation)`` of one micro-batch; without the reward's part if ``rl`` is off.

    Args:
        config: verl's ``ActorConfig``; its ``loss_agg_mode`` aggregates both parts.
        model_output: ``log_probs`` of the micro-batch, with gradient.
        data: the micro-batch; needs ``teacher_log_probs`` and ``teacher_mask`` (nested, as ``response_mask``) and λ
            under `COEF_KEY`.
        distillation: the term's settings.

    Raises:
        SdarError: the batch carries no teacher scores or no λ. There is no fallback to plain RL.
    """
    coef = tu.get_non_tensor_data(data=data, key=COEF_KEY, default=None)
    missing = next((name for name in (TEACHER_FIELD, TEACHER_MASK) if name not in data), None)
    missing = missing or (COEF_KEY if coef is None else None)
    if missing:
        raise SdarError(
            f"the batch has no {missing}: the teacher was not scored. Train with trainer.v1.trainer_mode=sdar, "
            "or turn the term off with sdar.distillation.enabled=false"
        )
    if not distillation.rl:
        data["advantages"] = torch.zeros_like(data["advantages"])
    loss, metrics = ppo_loss(config=config, model_output=model_output, data=data, dp_group=dp_group)
    log_probs = no_padding_2_padding(model_output["log_probs"], data)
    if "entropy" in distillation.needs and model_output.get("entropy") is None:
        raise SdarError(f"gate={distillation.gate} needs entropy: set actor_rollout_ref.actor.calculate_entropy=true")
    distribution = None
    if "distribution" in distillation.needs:
        if model_output.get(DIVERGENCE) is None:
            raise SdarError(f"divergence={distillation.divergence} needs the teacher's logits, which were not computed")
        distribution = no_padding_2_padding(model_output[DIVERGENCE], data)
    old = ["old_log_probs"] if "old" in distillation.needs else []
    padded = data.select(TEACHER_FIELD, TEACHER_MASK, "response_mask", *old).to_padded_tensor()
    entropy = no_padding_2_padding(model_output["entropy"], data) if "entropy" in distillation.needs else None
    term = distillation_loss(
        log_probs,
        padded[TEACHER_FIELD],
        padded["response_mask"] * padded[TEACHER_MASK],  # verl may have masked tokens since the teacher was scored
        distillation,
        coef=float(coef),
        entropy=entropy,
        old_log_probs=padded["old_log_probs"] if old else None,
        distribution=distribution,
        gate_mean=tu.get_non_tensor_data(data=data, key=GATE_MEAN_KEY, default=None),
        num_tokens_global=_number(data["batch_num_tokens"]),
        dp_size=int(data["dp_size"]),
        num_sequences_global=_number(data["global_batch_size"]),
        loss_agg_mode=config.loss_agg_mode,
        loss_scale_factor=config.loss_scale_factor,
    )
    metrics.update(
        {name: Metric(value=value, aggregation=AggregationType.SUM) for name, value in flatten(term.metrics).items()}
    )
    return loss + term.loss, metrics


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
