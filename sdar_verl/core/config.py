"""Settings of the distillation term, refused at once when they make no sense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from sdar_verl.core.divergences import DIVERGENCES
from sdar_verl.core.gates import GATES
from sdar_verl.core.schedules import ScheduleConfig, schedule_factor


@dataclass(frozen=True)
class DistillationConfig:
    """What is added to the RL loss: ``total = RL + λ(step) · Agg(g_t · d_t)``.

    Attributes:
        coef: λ, at least 0; 0 computes the term for the metrics and adds nothing.
        gate: name of a gate (``gap``, ``none``).
        beta: β of the gate, above 0; sharpness of the sigmoid per nat of gap.
        divergence: name of a divergence (``sampled_token``).
        schedule: how λ changes over training; a `ScheduleConfig`, a mapping of its fields, or a name.
    """

    coef: float = 0.01
    gate: str = "gap"
    beta: float = 5.0
    divergence: str = "sampled_token"
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def __post_init__(self) -> None:
        if not _is_number(self.coef) or self.coef < 0:
            raise ValueError(
                f"distillation coef (lambda) must be a finite number >= 0, got {self.coef!r}; the paper uses 0.01, "
                "and 0 turns the term off"
            )
        if not _is_number(self.beta) or self.beta <= 0:
            raise ValueError(
                f"distillation beta must be a finite number > 0, got {self.beta!r}; the paper uses 5. For a weight "
                "that does not depend on the gap set gate=none"
            )
        GATES.get(self.gate)
        DIVERGENCES.get(self.divergence)
        if isinstance(self.schedule, str):
            object.__setattr__(self, "schedule", ScheduleConfig(name=self.schedule))
        elif isinstance(self.schedule, Mapping):
            object.__setattr__(self, "schedule", _build(ScheduleConfig, self.schedule, "distillation.schedule"))
        elif not isinstance(self.schedule, ScheduleConfig):
            raise TypeError(f"distillation schedule must be a name or a mapping with a name, got {self.schedule!r}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> DistillationConfig:
        """From a plain mapping, such as the ``sdar.distillation`` part of a run's configuration.

        Raises:
            ValueError: a key that does not exist (the message lists those that do) or a value out of range.
        """
        return _build(cls, values, "distillation")

    def coef_at(self, step: int) -> float:
        """λ at training step `step`, the first step being 1."""
        return self.coef * schedule_factor(self.schedule, step)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _build(cls: type, values: Mapping[str, Any], where: str) -> Any:
    known = [f.name for f in fields(cls)]
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        raise ValueError(f"unknown key in {where}: {', '.join(unknown)}; known: {', '.join(known)}")
    return cls(**values)
