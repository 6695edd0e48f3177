"""Differences between two arms that were trained with several seeds and evaluated on one panel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sdar_verl.evaluation.intervals import paired_bootstrap


@dataclass(frozen=True)
class PairedDifference:
    """Mean of b − a over seeds and tasks, all in the unit of the outcomes.

    Attributes:
        mean: over all seeds and tasks.
        low, high: interval over seeds and tasks (`paired_difference`); with one seed, over tasks alone.
        seed_low, seed_high: interval of the paired t-test, over seeds with the panel as it is; None with one seed, and
            where all seeds have one and the same difference: of so few steps of success no spread can be told.
        p: two-sided p-value of that test; None likewise.
        by_seed: the mean over tasks of each seed.
        tasks: number of tasks.
    """

    mean: float
    low: float
    high: float
    seed_low: float | None
    seed_high: float | None
    p: float | None
    by_seed: tuple[float, ...]
    tasks: int

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.by_seed)

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def paired_difference(
    a: Sequence[Sequence[float]],
    b: Sequence[Sequence[float]],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> PairedDifference:
    """Compare two arms, outcome by outcome of the same seed and task.

    The interval is a paired, crossed bootstrap: seeds and tasks are drawn again with replacement, independently of each
    other, and each draw takes the differences d[s, t] of its seeds and tasks (Owen 2007, "The pigeonhole bootstrap").
    Percentiles of few seeds are too narrow (Hesterberg 2015), so the deviations of the draws from the mean are widened
    by ``t(ν) / z · sqrt((v_S + v_T) / (V_S + V_T))``: v_S and v_T are the unbiased variances of the mean over seeds and
    over tasks, V_S and V_T what a bootstrap has in their place, and ν their joint degrees of freedom (Satterthwaite).

    Args:
        a, b: outcomes of shape (seeds, tasks), the same seeds and tasks in the same order.
        resamples: number of bootstrap draws.
        seed: of the draws; the same input always gives the same interval.
        confidence: strictly between 0 and 1.

    Raises:
        ValueError: shapes differ or are empty, or an argument is outside its range.
    """
    difference = np.asarray(b, dtype=float) - np.asarray(a, dtype=float) if np.shape(a) == np.shape(b) else None
    if difference is None or difference.ndim != 2 or not difference.size:
        raise ValueError(f"paired outcomes need one shape (seeds, tasks), got {np.shape(a)} and {np.shape(b)}")
    seeds, tasks = difference.shape
    by_seed = tuple(float(value) for value in difference.mean(axis=1))
    if seeds == 1:
        own = paired_bootstrap(
            np.asarray(a, dtype=float)[0],  # type: ignore[arg-type]
            np.asarray(b, dtype=float)[0],  # type: ignore[arg-type]
            resamples=resamples,
            seed=seed,
            confidence=confidence,
        )
        return PairedDifference(own.mean, own.low, own.high, None, None, None, by_seed, tasks)
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(f"resamples must be at least 1 and confidence in (0, 1), got {resamples} and {confidence}")
    draw, tail, mean = np.random.default_rng(seed), (1 - confidence) / 2, float(difference.mean())
    of_seeds = draw.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    of_tasks = draw.multinomial(tasks, np.full(tasks, 1 / tasks), size=resamples) / tasks
    means = ((of_seeds @ difference) * of_tasks).sum(axis=1)
    low, high = mean + _widening(difference, confidence) * (np.quantile(means, [tail, 1 - tail]) - mean)
    seed_low, seed_high, p = _t_test(np.asarray(by_seed), confidence)
    return PairedDifference(mean, float(low), float(high), seed_low, seed_high, p, by_seed, tasks)


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for being many (Holm 1979): the chance of one false claim or more stays below the level."""
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = largest
    return adjusted


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean and its t-interval; of one value, the value three times."""
    own = np.asarray(values, dtype=float)
    mean = float(own.mean())
    if len(own) < 2:
        return mean, mean, mean
    half = float(stats.t.ppf(0.5 + confidence / 2, len(own) - 1) * own.std(ddof=1) / math.sqrt(len(own)))
    return mean, mean - half, mean + half


def _widening(difference: np.ndarray, confidence: float) -> float:
    """By what the bootstrap's deviations are multiplied; 1 where nothing varies."""
    unbiased, plain, weight = 0.0, 0.0, 0.0
    for axis in (0, 1):
        n = difference.shape[axis]
        if n < 2:
            continue
        own = float(difference.mean(axis=1 - axis).var(ddof=1)) / n
        unbiased, plain, weight = unbiased + own, plain + own * (n - 1) / n, weight + own * own / (n - 1)
    if not plain:
        return 1.0
    quantile = 0.5 + confidence / 2
    t = stats.t.ppf(quantile, unbiased * unbiased / weight)
    return float(t / stats.norm.ppf(quantile) * math.sqrt(unbiased / plain))


def _t_test(means: np.ndarray, confidence: float) -> tuple[float | None, float | None, float | None]:
    """The paired t-test over seeds: its interval and p-value, None where the seeds tie."""
    if np.ptp(means) < 1e-12:
        return None, None, None
    mean, low, high = mean_interval(means.tolist(), confidence)
    error = float(means.std(ddof=1)) / math.sqrt(len(means))
    return low, high, float(2 * stats.t.sf(abs(mean) / error, len(means) - 1))
