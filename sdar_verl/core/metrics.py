"""What is measured about the distillation term, as (sum, count) pairs that add up over micro-batches and ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch

from sdar_verl.core.tokens import Tokens

DECISION_GAP = 0.1  # nats; tokens on which teacher and student differ by more are called decision tokens
GAP_EDGES = (-8.0, -4.0, -2.0, -1.0, -0.5, -0.1, 0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
GATE_EDGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SUM, COUNT = "#sum", "#count"


def bin_labels(edges: tuple[float, ...], low: float, high: float) -> list[str]:
    """Names of the bins (a, b] between `low` and `high`, such as ``-0.5..-0.1``; both parts parse as floats."""
    bounds = (low, *edges, high)
    return [f"{a:g}..{b:g}" for a, b in pairwise(bounds)]


GAP_BINS = bin_labels(GAP_EDGES, float("-inf"), float("inf"))
GATE_BINS = bin_labels(GATE_EDGES, 0.0, 1.0)


@dataclass(frozen=True)
class Stat:
    """A mean that is not divided yet."""

    sum: float
    count: float

    def __add__(self, other: Stat) -> Stat:
        return Stat(self.sum + other.sum, self.count + other.count)

    @property
    def mean(self) -> float:
        """sum / count; raises `ZeroDivisionError` when nothing was counted."""
        return self.sum / self.count


def merge(parts: Iterable[Mapping[str, Stat]]) -> dict[str, Stat]:
    """Add up the same names over micro-batches, ranks or steps."""
    total: dict[str, Stat] = {}
    for part in parts:
        for name, stat in part.items():
            total[name] = total[name] + stat if name in total else stat
    return total


def flatten(stats: Mapping[str, Stat]) -> dict[str, float]:
    """``{name: Stat}`` as plain numbers ``name#sum`` and ``name#count``, for channels that carry only numbers.

    A channel may sum or average them over micro-batches, ranks and mini-batches, as long as it treats both the same.
    """
    numbers: dict[str, float] = {}
    for name, stat in stats.items():
        numbers[name + SUM] = stat.sum
        numbers[name + COUNT] = stat.count
    return numbers


def resolve(numbers: Mapping[str, float]) -> dict[str, float]:
    """The one reducer: every ``name#sum`` / ``name#count`` pair becomes ``name: mean``; other entries stay.

    A name with nothing counted is left out (a mean over no tokens does not exist).

    Raises:
        ValueError: one half of a pair is missing.
    """
    resolved: dict[str, float] = {}
    for key, value in numbers.items():
        if key.endswith(SUM):
            name = key.removesuffix(SUM)
            if name + COUNT not in numbers:
                raise ValueError(f"metric {name!r} has a sum but no count")
            if numbers[name + COUNT] > 0:
                resolved[name] = float(value) / float(numbers[name + COUNT])
        elif key.endswith(COUNT):
            if key.removesuffix(COUNT) + SUM not in numbers:
                raise ValueError(f"metric {key.removesuffix(COUNT)!r} has a count but no sum")
        else:
            resolved[key] = value
    return resolved


@torch.no_grad()
def distillation_stats(tokens: Tokens, gate: torch.Tensor, term: torch.Tensor, coef: float) -> dict[str, Stat]:
    """Statistics over the response tokens of one micro-batch; the same names always, even with no token at all.

    ``sdar/loss`` (mean of the weighted divergence, without λ), ``sdar/gate_mean``, ``sdar/gate_active_ratio`` (share
    with g > ½), ``sdar/gap_mean`` (nats), ``sdar/gap_negative_share``, ``sdar/decision_share``,
    ``sdar/decision_gate_mean`` and ``sdar/decision_gap_mean`` (tokens with |Δ| > 0.1), ``sdar/lambda``, and
    ``sdar/gap_hist/<bin>``, ``sdar/gate_hist/<bin>`` whose sum is the number of tokens in the bin and whose count is
    the number of all tokens, so that a resolved histogram adds to 1.
    """
    mask = tokens.mask
    gap, gate, term = tokens.gap[mask], gate[mask], term[mask]
    decision = gap.abs() > DECISION_GAP
    names = {
        "sdar/loss": term.sum(dtype=torch.float64),
        "sdar/gate_mean": gate.sum(dtype=torch.float64),
        "sdar/gate_active_ratio": (gate > 0.5).sum(),
        "sdar/gap_mean": gap.sum(dtype=torch.float64),
        "sdar/gap_negative_share": (gap < 0).sum(),
        "sdar/decision_share": decision.sum(),
        "decision_gate": gate[decision].sum(dtype=torch.float64),
        "decision_gap": gap[decision].sum(dtype=torch.float64),
    }
    names |= _histogram("sdar/gap_hist", gap, GAP_EDGES, GAP_BINS)
    names |= _histogram("sdar/gate_hist", gate, GATE_EDGES, GATE_BINS)
    sums = dict(zip(names, torch.stack([value.double() for value in names.values()]).tolist(), strict=True))
    decision_gate, decision_gap = sums.pop("decision_gate"), sums.pop("decision_gap")
    stats = {name: Stat(total, float(gap.numel())) for name, total in sums.items()}
    stats["sdar/decision_gate_mean"] = Stat(decision_gate, sums["sdar/decision_share"])
    stats["sdar/decision_gap_mean"] = Stat(decision_gap, sums["sdar/decision_share"])
    stats["sdar/lambda"] = Stat(coef, 1.0)
    return stats


def _histogram(name: str, values: torch.Tensor, edges: tuple[float, ...], bins: list[str]) -> dict[str, torch.Tensor]:
    index = torch.bucketize(values, torch.tensor(edges, dtype=values.dtype, device=values.device))
    counts = torch.bincount(index, minlength=len(bins))
    return {f"{name}/{label}": counts[i] for i, label in enumerate(bins)}
