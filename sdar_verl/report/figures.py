"""Plots of success and of time. Each function takes runs and returns a figure, or None where nothing was logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from sdar_verl.report.run import Run
from sdar_verl.report.style import STYLE, axes_row, colours_of, lone
from sdar_verl.report.timing import label, mean_phases, total_minutes

_PHASE_COLOURS = (
    "#2f6db3 #d9762b #3a8f5c #8256a8 #b23a48 #c9a227 #4aa3a2 #d48fb0 #7d8b9c #a3794f #6c8ebf #9aa84f".split()
)


def validation(runs: Sequence[Run]) -> Figure | None:
    """Success on the panel over steps, with Wilson intervals as bands."""
    if not any(run.validation for run in runs):
        return None
    with rc_context(STYLE):
        figure, (axes,) = axes_row(1, 4.2)
        for run, colour in zip(runs, colours_of(runs), strict=True):
            steps = sorted(run.validation)
            if not steps:
                continue
            rates = [run.validation[step].overall for step in steps]
            low, high = [rate.low for rate in rates], [rate.high for rate in rates]
            axes.plot(steps, [rate.rate for rate in rates], "-o", ms=5, color=colour, label=run.name)
            axes.fill_between(steps, low, high, color=colour, alpha=0.14, linewidth=0)
            if len(steps) == 1:  # a band needs two points
                axes.vlines(steps, low, high, color=colour, alpha=0.5)
        if len({step for run in runs for step in run.validation}) == 1:
            (only,) = {step for run in runs for step in run.validation}
            axes.set_xlim(only - 1, only + 1)
        success_axes(axes, "Success on the validation panel")
        axes.legend(loc="best")
    return figure


def training(runs: Sequence[Run], window: int = 5) -> Figure | None:
    """Success of the training episodes per step (thin) and its trailing mean over `window` steps (thick)."""
    if not any(run.series("episode/success_rate")[0] for run in runs):
        return None
    with rc_context(STYLE):
        figure, (axes,) = axes_row(1, 3.8)
        for run, colour in zip(runs, colours_of(runs), strict=True):
            steps, values = run.series("episode/success_rate")
            smooth = [float(np.mean(values[max(0, i + 1 - window) : i + 1])) for i in range(len(values))]
            axes.plot(steps, values, color=colour, alpha=0.3, linewidth=1)
            axes.plot(steps, smooth, color=colour, label=run.name, marker=lone(steps))
        success_axes(axes, f"Success while training (thick: mean of the last {window} steps)")
        axes.legend(loc="best")
    return figure


def wall_time(runs: Sequence[Run]) -> Figure | None:
    """Seconds of an average training step by phase, and minutes of the whole run, as stacked bars."""
    timed = [run for run in runs if run.series("timing_s/step")[0]]
    names = [run.name for run in timed]
    return time_bars(names, [mean_phases(run) for run in timed], [total_minutes(run) for run in timed])


def time_bars(
    names: Sequence[str], per_step: Sequence[Mapping[str, float]], in_total: Sequence[Mapping[str, float]]
) -> Figure | None:
    """Two rows of stacked bars, one per name: seconds of each phase in a step, minutes of each in the whole run."""
    if not names:
        return None
    per_step, in_total = _fold_small(per_step), _fold_small(in_total)
    phases = list(dict.fromkeys(phase for parts in (*in_total, *per_step) for phase in parts))
    phases.sort(key=lambda phase: phase == "other")
    colours = {phase: _PHASE_COLOURS[i % len(_PHASE_COLOURS)] for i, phase in enumerate(phases)} | {"other": "#d5dae1"}
    with rc_context(STYLE):
        figure, axes = axes_row(2, 1.9 + 0.55 * len(names))
        for panel, data, title in (
            (axes[0], per_step, "Seconds per training step (mean)"),
            (axes[1], in_total, "Minutes of the whole run"),
        ):
            for row, parts in enumerate(data):
                left = 0.0
                for phase, value in parts.items():
                    panel.barh(
                        row, value, left=left, height=0.6, color=colours[phase], edgecolor="white", linewidth=0.8
                    )
                    left += value
                panel.text(left, row, f" {left:.1f}", va="center", fontsize=9)
            panel.margins(x=0.1)
            panel.set_yticks(range(len(names)), names)
            panel.invert_yaxis()
            panel.grid(axis="y", visible=False)
            panel.set_title(title)
        handles = [axes[0].barh(0, 0, color=colours[phase], label=label(phase)) for phase in phases]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(phases)), fontsize=9)
    return figure


def success_axes(axes: Axes, title: str, across: str = "step") -> None:
    """Title, and axes of success in percent over steps or something else."""
    axes.set_title(title)
    axes.set_xlabel(across)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _fold_small(bars: Sequence[Mapping[str, float]], share: float = 0.01) -> list[dict[str, float]]:
    """The same bars with every phase that is below `share` of each of them counted as ``other``."""
    totals = [sum(bar.values()) or 1.0 for bar in bars]
    small = {
        phase
        for bar in bars
        for phase in bar
        if all(other.get(phase, 0) < share * total for other, total in zip(bars, totals, strict=True))
    }
    folded = []
    for bar in bars:
        kept = {phase: value for phase, value in bar.items() if phase not in small and phase != "other"}
        folded.append(kept | {"other": sum(bar.values()) - sum(kept.values())})
    return folded
