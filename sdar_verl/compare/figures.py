"""The plots of a comparison. Each function takes it and returns a figure, or None where nothing was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sdar_verl.compare.arms import ArmRuns, Comparison
from sdar_verl.compare.numbers import SIGNALS, Against, bands, mean_parts, training_seconds
from sdar_verl.evaluation.paired import mean_interval
from sdar_verl.report.figures import success_axes, time_bars
from sdar_verl.report.style import COLOURS, STYLE, axes_row, lone
from sdar_verl.report.timing import mean_phases, total_minutes

_DASHES = ("-", "--", ":")
_TICKS = 16  # as many evaluated steps can be named below the axis


def learning_curves(found: Comparison) -> Figure | None:
    """Success on the panel over steps: thin lines for seeds, a thick one for their mean, a band for its interval."""
    if not any(run.validation for run in found.runs):
        return None
    with rc_context(STYLE):
        figure, (axes,) = axes_row(1, 4.6)
        for arm, look in zip(found.arms, looks(found.arms), strict=True):
            series = [_rates(run.validation) for run in arm.runs.values() if run.validation]
            if not series:
                continue
            if len(series) == 1:
                (run,) = (run for run in arm.runs.values() if run.validation)
                rates = [run.validation[step].overall for step in sorted(run.validation)]
                shown = [(rate.rate, rate.low, rate.high) for rate in rates]
                _curve(axes, series[0][0], shown, arm.name, look)
                continue
            for steps, values in series:
                axes.plot(steps, values, color=look[0], linestyle=look[1], alpha=0.25, linewidth=1)
            _curve(axes, *bands(series), arm.name, look)
        evaluated = sorted({step for run in found.runs for step in run.validation})
        if len(evaluated) <= _TICKS:
            axes.set_xticks(evaluated)
        success_axes(axes, "Success on the panel over training steps")
        axes.legend(loc="best", fontsize=9)
    return figure


def time_curves(found: Comparison) -> Figure | None:
    """Success on the panel over minutes of training, evaluations and start-up not counted."""
    clocks = {id(run): training_seconds(run) for run in found.runs}
    if not any(clocks.values()):
        return None
    with rc_context(STYLE):
        figure, (axes,) = axes_row(1, 4.2)
        for arm, look in zip(found.arms, looks(found.arms), strict=True):
            series = []
            for run in arm.runs.values():
                own = {step: spent / 60 for step, spent in clocks[id(run)].items()}
                if own:
                    series.append(([own[step] for step in own], [run.validation[step].overall.rate for step in own]))
            if not series:
                continue
            if len(series) > 1:
                for minutes, rates in series:
                    axes.plot(minutes, rates, color=look[0], linestyle=look[1], alpha=0.25, linewidth=1)
            grid = np.linspace(max(own[0][0] for own in series), min(own[0][-1] for own in series), 60)
            lines = [np.interp(grid, *own) for own in series]
            shown = [mean_interval([float(line[i]) for line in lines]) for i in range(len(grid))]
            _curve(axes, grid, shown, arm.name, look, marker="")
        axes.set_xmargin(0.03)
        success_axes(axes, "Success on the panel over training time", "minutes of training steps")
        axes.legend(loc="best", fontsize=9)
    return figure


def differences(compared: Sequence[tuple[str, Sequence[Against]]]) -> Figure | None:
    """Paired differences of the last evaluations' mean with their intervals; one row per arm, one colour per way."""
    compared = [(name, own) for name, own in compared if own]
    if not compared:
        return None
    arms = list(dict.fromkeys(own.arm for _, way in compared for own in way))
    with rc_context(STYLE):
        figure, (axes,) = axes_row(1, 1.5 + 0.5 * len(arms))
        for number, (name, way) in enumerate(compared):
            rows = [arms.index(own.arm) + 0.22 * (number - (len(compared) - 1) / 2) for own in way]
            gaps = [own.mean_last for own in way]
            means = [100 * gap.mean for gap in gaps]
            spans = [[100 * (gap.mean - gap.low) for gap in gaps], [100 * (gap.high - gap.mean) for gap in gaps]]
            axes.errorbar(means, rows, xerr=spans, fmt="o", ms=6, capsize=3, color=COLOURS[number], label=name)
            for row, gap in zip(rows, gaps, strict=True):
                if gap.seeds > 1:
                    axes.plot(
                        [100 * v for v in gap.by_seed], [row] * gap.seeds, "|", ms=7, color=COLOURS[number], alpha=0.5
                    )
        axes.axvline(0, color="#5b6675", linewidth=1)
        axes.set_yticks(range(len(arms)), arms)
        axes.set_ylim(len(arms) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_title(f"Success minus that of {compared[0][1][0].baseline}, in percentage points")
        if len(compared) > 1:
            axes.legend(loc="best", fontsize=9)
    return figure


def signals(found: Comparison) -> Figure | None:
    """What is watched in every step: mean over seeds, and a band from the least to the largest seed."""
    shown = [signal for signal in SIGNALS if any(signal.series(run)[0] for run in found.runs)]
    if not shown:
        return None
    columns = 2
    rows = math.ceil(len(shown) / columns)
    with rc_context(STYLE | {"axes.titlesize": 10, "axes.titleweight": "normal"}):
        figure = Figure(figsize=(11, 0.5 + 2.3 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, signal in zip(panels, shown, strict=False):
            for arm, look in zip(found.arms, looks(found.arms), strict=True):
                by_step = [dict(zip(*signal.series(run), strict=True)) for run in arm.runs.values()]
                by_step = [own for own in by_step if own]
                if not by_step:
                    continue
                steps = sorted(set().union(*by_step))
                values = [[own[step] for own in by_step if step in own] for step in steps]
                means = [float(np.mean(own)) for own in values]
                axes.plot(
                    steps, means, color=look[0], linestyle=look[1], label=arm.name, marker=lone(steps), linewidth=1.6
                )
                axes.fill_between(
                    steps,
                    [min(own) for own in values],
                    [max(own) for own in values],
                    color=look[0],
                    alpha=0.12,
                    linewidth=0,
                )
            axes.set_title(signal.name)
            axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))
        for axes in panels[len(shown) :]:
            axes.set_visible(False)
        lines = {line.get_label(): line for axes in panels for line in axes.lines}
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=min(5, len(lines)), fontsize=9)
    return figure


def time_parts(found: Comparison) -> Figure | None:
    """Stacked bars of the time of each arm, means over its seeds."""
    names, per_step, in_total = [], [], []
    for arm in found.arms:
        timed = [run for run in arm.runs.values() if run.series("timing_s/step")[0]]
        if timed:
            names.append(arm.name)
            per_step.append(mean_parts([mean_phases(run) for run in timed]))
            in_total.append(mean_parts([total_minutes(run) for run in timed]))
    return time_bars(names, per_step, in_total)


def looks(arms: Sequence[ArmRuns]) -> list[tuple[str, str]]:
    """Colour and dashes of each arm; none twice before there are more than colours times dashes."""
    return [(COLOURS[i % len(COLOURS)], _DASHES[i // len(COLOURS) % len(_DASHES)]) for i in range(len(arms))]


def _curve(
    axes: Axes,
    across: Sequence[float] | np.ndarray,
    shown: Sequence[tuple[float, float, float]],
    name: str,
    look: tuple[str, str],
    marker: str = "o",
) -> None:
    means, low, high = ([own[i] for own in shown] for i in range(3))
    axes.plot(across, means, color=look[0], linestyle=look[1], marker=marker, ms=5, label=name)
    axes.fill_between(across, np.clip(low, 0, 1), np.clip(high, 0, 1), color=look[0], alpha=0.13, linewidth=0)


def _rates(validation) -> tuple[list[int], list[float]]:
    steps = sorted(validation)
    return steps, [validation[step].overall.rate for step in steps]
