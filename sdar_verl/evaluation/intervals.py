"""Uncertainty of success rates: Wilson score intervals and a paired bootstrap over tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class Rate:
    """A success rate with its interval; all of `rate`, `low`, `high` in [0, 1].

    Attributes:
        rate: the point estimate.
        low: lower end of the interval.
        high: upper end of the interval.
        n: number of independent tasks behind it.
    """

    rate: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{100 * self.rate:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}] (n = {self.n})"


def wilson(successes: float, n: int, confidence: float = 0.95) -> Rate:
    """Wilson score interval of a proportion.

    With p = successes / n and z the two-sided normal quantile, the ends are
    ``(p + z²/2n ± z·sqrt(p(1−p)/n + z²/4n²)) / (1 + z²/n)``. It stays inside [0, 1] and is sensible at p = 0 and 1.

    Args:
        successes: 0 to n; may be fractional where each task's outcome is itself a mean.
        n: number of tasks, at least 1.
        confidence: strictly between 0 and 1.

    Raises:
        ValueError: an argument is outside its range.
    """
    if n < 1:
        raise ValueError(f"a rate needs at least one task, got n = {n}")
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie in [0, {n}], got {successes}")
    z = _quantile(confidence)
    p, z2 = successes / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Rate(p, low, high, n)


@dataclass(frozen=True)
class Difference:
    """Mean of b − a over paired tasks, with a bootstrap interval in the same unit."""

    mean: float
    low: float
    high: float
    n: int


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], *, resamples: int = 10_000, seed: int = 0, confidence: float = 0.95
) -> Difference:
    """Percentile interval of mean(b − a) when tasks are drawn again with replacement.

    Args:
        a, b: outcomes of the same tasks in the same order, shape `(n,)`.
        resamples: number of bootstrap draws.
        seed: seed of the draws; the same input always gives the same interval.
        confidence: strictly between 0 and 1.

    The interval holds for other tasks of the same kind with the two trained models as they are; it says nothing about
    training again with another seed.

    Raises:
        ValueError: lengths differ, are zero, or an argument is outside its range.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"paired outcomes need the same, non-zero length; got {len(a)} and {len(b)}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    _quantile(confidence)
    difference = np.asarray(b, dtype=float) - np.asarray(a, dtype=float)
    draws = np.random.default_rng(seed).integers(0, len(difference), size=(resamples, len(difference)))
    means = difference[draws].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Difference(float(difference.mean()), float(low), float(high), len(difference))


def _quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")
    return NormalDist().inv_cdf(0.5 + confidence / 2)
