"""The tables of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from sdar_verl.compare.arms import ArmRuns, Comparison
from sdar_verl.compare.numbers import (
    SIGNALS,
    TAIL,
    Against,
    lone_rate,
    mean_parts,
    milestone_values,
    tails,
    type_values,
)
from sdar_verl.compare.table import Cell, Table
from sdar_verl.evaluation.jsonl import read_lines
from sdar_verl.evaluation.paired import PairedDifference, mean_interval
from sdar_verl.guards import FILE as GUARDS
from sdar_verl.report.compare import percent, signed
from sdar_verl.report.timing import label, mean_phases, total_minutes

NONE = "\u2013"


def milestones_table(found: Comparison, k: int) -> Table:
    """Before training, last, best and mean of the last k evaluations of every arm."""
    rows = []
    for arm in found.arms:
        values = milestone_values(arm, k)
        cells = [_rate(arm, name, own, k) for name, own in values.items()]
        rows.append([Cell(arm.name, (count(len(arm.runs), "seed"),)), *cells])
    return Table("Success on the panel", ["arm", "before training", "last", "best", f"mean of last {k}"], rows)


def difference_table(title: str, compared: Sequence[Against], k: int) -> Table:
    """Paired differences in percentage points."""
    head = ["difference", "last evaluation", f"mean of last {k}", "paired t-test over seeds", "each seed", "at"]
    rows = []
    for own in compared:
        gap = own.mean_last
        steps = [f"{step:.4g}" for step in own.steps]
        at = f"step {steps[0]}" if own.minutes is None else f"{own.minutes:.1f} min"
        notes = (f"steps {steps[0]} and {steps[1]}",) if own.minutes is not None else ()
        seeds = f"{count(gap.seeds, 'seed')}, {count(gap.tasks, 'task')}"
        rows.append(
            [
                Cell(f"{own.arm} \u2212 {own.baseline}", (seeds,)),
                points(own.last),
                points(gap, *(() if own.averaged == k else (f"only {count(own.averaged, 'evaluation')}",))),
                _test(own),
                ", ".join(signed(value) for value in gap.by_seed),
                Cell(at, notes),
            ]
        )
    return Table(title, head, rows)


def type_table(found: Comparison, k: int) -> Table:
    """Success per task type over the last k evaluations."""
    values = [type_values(arm, k) for arm in found.arms]
    panel = next((run.panel for run in found.runs if run.panel is not None), None)
    counts = panel.type_counts if panel else {}
    rows = [
        [
            Cell(name, (count(counts[name], "task"),) if name in counts else ()),
            *(_spread(own.get(name)) for own in values),
        ]
        for name in sorted({name for own in values for name in own})
    ]
    return Table(f"Success by task type, mean of last {k}", ["task type", *(arm.name for arm in found.arms)], rows)


def cost_table(found: Comparison, price: float | None = None) -> Table:
    """Seconds of a step by phase, time of the whole run, and if an hour's price is given, its cost."""
    arms = found.arms
    parts = [[mean_phases(run) for run in arm.runs.values() if run.series("timing_s/step")[0]] for arm in arms]
    mean = [mean_parts(runs) for runs in parts]
    order = list(dict.fromkeys(name for runs in parts for own in runs for name in own if name != "other"))
    rows: list[list[Cell | str]] = [
        [f"{label(name)}, s a step", *(f"{own[name]:.1f}" if own.get(name, 0) >= 0.05 else NONE for own in mean)]
        for name in [*order, "other"]
        if any(own.get(name, 0) >= 0.05 for own in mean)
    ]
    totals = [sum(own.values()) for own in mean]
    base = totals[0] if totals else 0.0
    rows.append(
        [
            "whole step, s",
            *(Cell(f"{own:.1f}", (f"{own / base:.2f} times",) if base else ()) if own else NONE for own in totals),
        ]
    )
    minutes = [[total_minutes(run) for run in arm.runs.values() if run.series("timing_s/step")[0]] for arm in arms]
    rows.append(["validations, min a run", *(_number([own.get("testing", 0.0) for own in runs]) for runs in minutes)])
    rows.append(["steps and validations, min a run", *(_number([sum(own.values()) for own in r]) for r in minutes)])
    whole = [[seconds / 60 for seconds in arm.seconds.values()] for arm in arms]
    if any(whole):
        rows.append(["whole run with its start, min", *(_number(own) for own in whole)])
    if price is not None:
        spent = [own or [sum(parts.values()) for parts in runs] for own, runs in zip(whole, minutes, strict=True)]
        rows.append(
            [f"cost of a run at {price:g} an hour", *(_number([m / 60 * price for m in own], 2) for own in spent)]
        )
    return Table("Time", ["mean over seeds", *(arm.name for arm in arms)], rows)


def signal_table(found: Comparison) -> Table:
    """How the runs were at their end, and what the guards found."""
    rows: list[list[Cell | str]] = []
    for signal in SIGNALS:
        values = [tails(arm, signal) for arm in found.arms]
        if any(values):
            rows.append([signal.name, *(_range(own, signal.shape) for own in values)])
    guards = [_guards(arm, found.until) for arm in found.arms]
    for name in sorted({name for own in guards for name in own}):
        counts = [f"{own.get(name, 0)} of {len(arm.runs)} runs" for own, arm in zip(guards, found.arms, strict=True)]
        rows.append([f"guard {name}", *counts])
    return Table(f"Signals, mean of the last {TAIL} steps", ["signal", *(arm.name for arm in found.arms)], rows)


def points(gap: PairedDifference, *notes: str) -> Cell:
    """A difference of rates in percentage points with its interval, and notes below it."""
    return Cell(f"{signed(gap.mean)} points", (f"{signed(gap.low)} to {signed(gap.high)}", *notes))


def _test(own: Against) -> Cell | str:
    gap = own.mean_last
    if gap.p is None or gap.seed_low is None or gap.seed_high is None:
        return "needs two seeds" if gap.seeds < 2 else "none: the seeds tie"
    notes = [f"{signed(gap.seed_low)} to {signed(gap.seed_high)}"]
    if own.adjusted is not None and own.adjusted != gap.p:
        notes.append(f"p = {own.adjusted:.3f} adjusted")
    return Cell(f"p = {gap.p:.3f}", tuple(notes))


def _rate(arm: ArmRuns, name: str, values: Sequence[float], k: int) -> Cell | str:
    alone = lone_rate(arm, name, k)
    if alone is not None:
        return Cell(percent(alone.rate), (f"{100 * alone.low:.0f} to {100 * alone.high:.0f} %",))
    return _spread(values)


def _spread(values: Sequence[float] | None) -> Cell | str:
    """Mean over seeds with its t-interval, and the least and largest seed."""
    if not values:
        return NONE
    mean, low, high = mean_interval(values)
    if len(values) == 1:
        return Cell(percent(mean))
    interval = f"{max(0, 100 * low):.0f} to {min(100, 100 * high):.0f} %"
    return Cell(percent(mean), (interval, f"seeds {100 * min(values):.0f} to {100 * max(values):.0f} %"))


def _number(values: Sequence[float], digits: int = 1) -> Cell | str:
    if not values:
        return NONE
    notes = (f"{min(values):.{digits}f} to {max(values):.{digits}f}",) if len(values) > 1 else ()
    return Cell(f"{fmean(values):.{digits}f}", notes)


def _range(values: Sequence[float], shape: str) -> Cell | str:
    if not values:
        return NONE

    def shown(value: float) -> str:
        return shape.format(value).replace("%", " %").replace("-", "\u2212")

    return Cell(shown(fmean(values)), (f"{shown(min(values))} to {shown(max(values))}",) if len(values) > 1 else ())


def _guards(arm: ArmRuns, until: int | None) -> dict[str, int]:
    """Guard to the number of runs in which it found something."""
    counts: dict[str, int] = {}
    for run in arm.runs.values():
        lines = read_lines(run.path / GUARDS) if (run.path / GUARDS).is_file() else ()
        for name in {line["guard"] for line in lines if until is None or line["step"] <= until}:
            counts[name] = counts.get(name, 0) + 1
    return counts


def count(number: int, thing: str) -> str:
    """``1 seed`` or ``3 seeds``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
