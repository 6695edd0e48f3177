"""What the numbers show, in plain words, and what they do not."""

from __future__ import annotations

from collections.abc import Sequence

from sdar_verl.evaluation.summary import milestones
from sdar_verl.report.compare import Comparison, gain, percent, signed
from sdar_verl.report.run import Run
from sdar_verl.report.timing import median_step


def learning(run: Run, k: int) -> str:
    """One sentence: where a run began and where it ended."""
    if not run.validation:
        return f"{run.name} has no whole validation yet."
    found, change = milestones(run.rates, k), gain(run, k)
    if change is None:
        return f"{run.name} solves {percent(found.last.rate)} of the panel at step {found.last_step}."
    judged = "a gain" if change.low > 0 else "a loss" if change.high < 0 else "not told apart from no change"
    return (
        f"{run.name} went from {percent(run.validation[0].overall.rate)} before training to {percent(found.last.rate)} "
        f"at step {found.last_step}; the mean of its last {found.k} evaluations is {percent(found.mean_last.rate)}, "
        f"{judged} ({signed(change.mean)} points, 95 % interval {signed(change.low)} to {signed(change.high)})."
    )


def chance_at_start(runs: Sequence[Run]) -> str:
    """How far apart the runs were before any training; empty with fewer than two such evaluations."""
    rates = [run.validation[0].overall.rate for run in runs if 0 in run.validation]
    if len(rates) < 2:
        return ""
    spread = 100 * (max(rates) - min(rates))
    return (
        f"Before training the runs are {spread:.1f} points apart. Where they start from the same weights, that is the "
        "luck of sampling alone and a yardstick for the other differences."
    )


def verdict(found: Comparison) -> str:
    """One or two sentences on the difference between two runs."""
    gap = found.mean_last
    many = f"the last {len(found.steps)} common evaluations" if len(found.steps) > 1 else "the last common evaluation"
    numbers = f"{signed(gap.mean)} points, 95 % interval {signed(gap.low)} to {signed(gap.high)}"
    if gap.low > 0 or gap.high < 0:
        ahead, behind = (found.b, found.a) if gap.low > 0 else (found.a, found.b)
        return f"Over {many}, {ahead} is ahead of {behind} on this panel ({found.b} minus {found.a}: {numbers})."
    return (
        f"Over {many}, the two cannot be told apart on this panel ({found.b} minus {found.a}: {numbers}; the interval "
        "contains zero)."
    )


def caveat(runs: Sequence[Run]) -> str:
    """What one training per method can and cannot say."""
    seeds = [(run.manifest or {}).get("seeds") for run in runs]
    same = "started from the same seeds" if all(seeds) and all(s == seeds[0] for s in seeds) else "trained once each"
    if len(runs) == 1:
        return (
            "This is one run with one seed. The intervals say how well the panel's tasks pin down this model's "
            "success; another seed can end elsewhere, by more than the intervals show."
        )
    return (
        f"Read this with care: the runs {same}, so there is one seed per method. The intervals cover the choice of "
        "tasks, not the luck of a training; another seed can move a curve by more than the intervals show, and can "
        "turn a lead around. A claim about the methods needs several seeds."
    )


def cost(runs: Sequence[Run]) -> str:
    """How the step times relate; empty with fewer than two timed runs."""
    timed = [(run.name, seconds) for run in runs if (seconds := median_step(run))]
    if len(timed) < 2:
        return ""
    first, base = timed[0]
    others = ", ".join(f"{name} {seconds:.1f} s ({seconds / base:.2f} times)" for name, seconds in timed[1:])
    return (
        f"Median training step: {first} {base:.1f} s, {others}. The runs played their own episodes, and longer or "
        "shorter episodes change the time of a step as well as the method does."
    )
