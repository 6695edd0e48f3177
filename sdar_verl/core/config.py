"""Settings of the distillation part of a method, refused at once when they make no sense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from sdar_verl.core.combinations import check_combination
from sdar_verl.core.distributions import SUPPORTS, TAILS
from sdar_verl.core.divergences import DIVERGENCES
from sdar_verl.core.gates import BASELINES, GATES
from sdar_verl.core.ratio import RATIOS
from sdar_verl.core.schedules import ScheduleConfig, schedule_factor

PLACES = ("loss", "advantage")


@dataclass(frozen=True)
class DistillationConfig:
    """How the teacher enters. In the loss: ``total = RL + λ(step) · Agg((g_t − b) · ρ_t · d_t)``.

    Attributes:
        place: ``loss`` (a term beside the RL loss) or ``advantage`` (inside the RL loss, by the part `advantage`).
        rl: False takes the reward's advantage out (0 for every token), so that only the teacher teaches; a KL or
            entropy term of the RL loss stays.
        coef: λ, at least 0; 0 computes the term for the metrics and adds nothing.
        gate: name of a gate (``gap``, ``entropy``, ``soft_or``, ``hard``, ``none``).
        beta: β of the gate, above 0; sharpness of the sigmoid per nat.
        gate_threshold: of the hard gate, in nats.
        gate_baseline: what is taken from the gate: ``none``, ``half`` or ``mean``, see `gate_weights`.
        divergence: name of a divergence (``sampled_token``, ``k3``, ``full``, ``topk``).
        alpha: of ``full`` and ``topk``: 0 forward KL, 1 reverse KL, between them generalised Jensen-Shannon.
        topk, topk_support, topk_tail: of ``topk``, see `distribution_divergence`.
        divergence_clip: largest divergence of one token, in nats; None for none.
        importance_ratio: ``none``, ``detached`` or ``attached``, see `importance_ratio`.
        ratio_clip: largest importance ratio, above 0; None for none.
        advantage: name of an advantage part (``evidence``, ``reverse_kl``); None with ``place=loss``.
        evidence_clip: ε_w of ``evidence``, in (0, 1).
        schedule: how λ changes over training; a `ScheduleConfig`, a mapping of its fields, or a name.
    """

    place: str = "loss"
    rl: bool = True
    coef: float = 0.01
    gate: str = "gap"
    beta: float = 5.0
    gate_threshold: float = 0.0
    gate_baseline: str = "none"
    divergence: str = "sampled_token"
    alpha: float = 1.0
    topk: int = 100
    topk_support: str = "teacher"
    topk_tail: str = "bucket"
    divergence_clip: float | None = None
    importance_ratio: str = "none"
    ratio_clip: float | None = None
    advantage: str | None = None
    evidence_clip: float = 0.2
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
        _one_of("place", self.place, PLACES)
        _one_of("gate_baseline", self.gate_baseline, BASELINES)
        _one_of("importance_ratio", self.importance_ratio, RATIOS)
        if not _is_number(self.gate_threshold):
            raise ValueError(
                f"distillation gate_threshold must be a finite number of nats, got {self.gate_threshold!r}"
            )
        if not _is_number(self.alpha) or not 0 <= self.alpha <= 1:
            raise ValueError(f"distillation alpha must lie in [0, 1], got {self.alpha!r}")
        if isinstance(self.topk, bool) or not isinstance(self.topk, int) or self.topk < 1:
            raise ValueError(f"distillation topk must be a whole number from 1, got {self.topk!r}")
        _one_of("topk_support", self.topk_support, SUPPORTS)
        _one_of("topk_tail", self.topk_tail, TAILS)
        if self.divergence_clip is not None and (not _is_number(self.divergence_clip) or self.divergence_clip <= 0):
            raise ValueError(f"distillation divergence_clip must be a number > 0 or null, got {self.divergence_clip!r}")
        if self.ratio_clip is not None and (not _is_number(self.ratio_clip) or self.ratio_clip <= 0):
            raise ValueError(f"distillation ratio_clip must be a finite number > 0 or null, got {self.ratio_clip!r}")
        if not _is_number(self.evidence_clip) or not 0 < self.evidence_clip < 1:
            raise ValueError(f"distillation evidence_clip must lie between 0 and 1, got {self.evidence_clip!r}")
        if not isinstance(self.rl, bool):
            raise ValueError(f"distillation rl must be true or false, got {self.rl!r}")
        check_combination(self)
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

    @property
    def needs(self) -> frozenset[str]:
        """Optional fields of `Tokens` that the configured parts read."""
        old = {"old"} if self.importance_ratio != "none" else set()
        return GATES.needs(self.gate) | DIVERGENCES.needs(self.divergence) | old

    def coef_at(self, step: int) -> float:
        """λ at training step `step`, the first step being 1."""
        return self.coef * schedule_factor(self.schedule, step)


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _build(cls: type, values: Mapping[str, Any], where: str) -> Any:
    known = [f.name for f in fields(cls)]
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        raise ValueError(f"unknown key in {where}: {', '.join(unknown)}; known: {', '.join(known)}")
    return cls(**values)
