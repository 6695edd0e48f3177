"""Schedules of λ: a factor on the configured coefficient as a function of the training step.

Steps count from 1, as the trainer does. Every schedule is a function ``(step, config) -> factor`` in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from sdar_verl.core.registry import Registry


@dataclass(frozen=True)
class ScheduleConfig:
    """How λ changes over training.

    Attributes:
        name: ``constant``, ``linear_warmup``, ``linear_decay`` or ``cosine``.
        steps: length of the ramp in training steps; needed by all but ``constant``.
        floor: share of the coefficient that is left when a decay has ended, in [0, 1].
    """

    name: str = "constant"
    steps: int | None = None
    floor: float = 0.0

    def __post_init__(self) -> None:
        SCHEDULES.get(self.name)
        if self.name == "constant":
            if self.steps is not None or self.floor != 0.0:
                raise ValueError(
                    "schedule=constant takes neither steps nor floor; remove them or name another schedule"
                )
            return
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"schedule={self.name} needs steps, a whole number of at least 1; got {self.steps!r}")
        if not isinstance(self.floor, (int, float)) or not 0.0 <= self.floor <= 1.0:
            raise ValueError(f"schedule floor must lie in [0, 1] (share of coef left at the end); got {self.floor!r}")
        if self.name == "linear_warmup" and self.floor != 0.0:
            raise ValueError("schedule=linear_warmup takes no floor; remove it or choose linear_decay or cosine")


Schedule = Callable[[int, ScheduleConfig], float]
SCHEDULES: Registry[Schedule] = Registry("schedule")


@SCHEDULES.register("constant")
def constant(step: int, config: ScheduleConfig) -> float:
    """1 at every step."""
    return 1.0


@SCHEDULES.register("linear_warmup")
def linear_warmup(step: int, config: ScheduleConfig) -> float:
    """step / steps, then 1: the first step already gets 1/steps, step `steps` is the first full one."""
    return min(1.0, step / config.steps)


@SCHEDULES.register("linear_decay")
def linear_decay(step: int, config: ScheduleConfig) -> float:
    """From 1 at step 1 in a straight line to `floor` at step ``1 + steps``, then `floor`."""
    return 1.0 - _progress(step, config) * (1.0 - config.floor)


@SCHEDULES.register("cosine")
def cosine(step: int, config: ScheduleConfig) -> float:
    """From 1 at step 1 along half a cosine to `floor` at step ``1 + steps``, then `floor`."""
    return config.floor + (1.0 - config.floor) * 0.5 * (1.0 + math.cos(math.pi * _progress(step, config)))


def schedule_factor(config: ScheduleConfig, step: int) -> float:
    """The factor on λ at training step `step` (first step: 1); raises `ValueError` for a step below 1."""
    if step < 1:
        raise ValueError(f"training steps count from 1, got {step}")
    return SCHEDULES.get(config.name)(step, config)


def _progress(step: int, config: ScheduleConfig) -> float:
    return min(1.0, (step - 1) / config.steps)
