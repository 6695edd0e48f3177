"""Plots of the distillation term: gate and gap over time, and how they spread over the tokens of each step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from sdar_verl.report.run import Run
from sdar_verl.report.style import STYLE, axes_row, colours_of, lone


def gate_and_gap(runs: Sequence[Run]) -> Figure | None:
    """Mean gate, mean gap and shares of tokens over steps; dashed lines are the decision tokens."""
    runs, colours = _distilling(runs)
    if not runs:
        return None
    with rc_context(STYLE):
        figure, axes = axes_row(3, 3.6)
        panels = (
            (
                axes[0],
                "Gate (mean)",
                (("sdar/gate_mean", "all tokens", "-"), ("sdar/decision_gate_mean", "decision tokens", "--")),
            ),
            (
                axes[1],
                "Gap in nats (mean)",
                (("sdar/gap_mean", "all tokens", "-"), ("sdar/decision_gap_mean", "decision tokens", "--")),
            ),
            (
                axes[2],
                "Share of tokens",
                (
                    ("sdar/gate_active_ratio", "gate > 0.5", "-"),
                    ("sdar/gap_negative_share", "gap < 0", "--"),
                    ("sdar/decision_share", "decision tokens", ":"),
                ),
            ),
        )
        for panel, title, lines in panels:
            for run, colour in zip(runs, colours, strict=True):
                for name, what, style in lines:
                    steps, values = run.series(name)
                    if steps:
                        named = what if len(runs) == 1 else f"{run.name}: {what}"
                        panel.plot(steps, values, style, color=colour, label=named, marker=lone(steps))
            panel.set_title(title)
            panel.set_xlabel("step")
            if panel.lines:  # a method that has no gate leaves its panel empty
                panel.legend(loc="best", fontsize=8.5)
        axes[0].axhline(0.5, color="#9aa4b1", linewidth=1)
        axes[1].axhline(0, color="#9aa4b1", linewidth=1)
        axes[2].set_ylim(0, 1)
        axes[2].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def histograms(runs: Sequence[Run]) -> Figure | None:
    """Heat maps: how the tokens of each step spread over the bins of gap and gate."""
    runs = [run for run in _distilling(runs)[0] if run.family("sdar/gap_hist/")]
    if not runs:
        return None
    with rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(11, 0.4 + 3.6 * len(runs)), layout="constrained")
        grid = figure.subplots(len(runs), 2, squeeze=False)
        for row, run in zip(grid, runs, strict=True):
            for axes, prefix, what in ((row[0], "sdar/gap_hist/", "Gap in nats"), (row[1], "sdar/gate_hist/", "Gate")):
                if not run.family(prefix):
                    axes.set_axis_off()
                    continue
                image = _heat_map(axes, run, prefix)
                axes.set_title(what if len(runs) == 1 else f"{run.name}: {what.lower()}")
                bar = figure.colorbar(image, ax=axes, format=PercentFormatter(1, decimals=0), pad=0.02)
                bar.set_label("share of tokens")
                bar.outline.set_visible(False)
    return figure


def _distilling(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    pairs = [(run, colour) for run, colour in zip(runs, colours_of(runs), strict=True) if run.distils]
    return [run for run, _ in pairs], [colour for _, colour in pairs]


def _heat_map(axes: Axes, run: Run, prefix: str) -> QuadMesh:
    names = sorted(run.family(prefix), key=lambda name: _bounds(name)[0])
    steps = sorted({step for name in names for step in run.series(name)[0]})
    shares = np.array([[run.metrics[step].get(name, 0.0) for step in steps] for name in names])
    image = axes.pcolormesh(
        np.arange(len(steps) + 1) - 0.5,
        np.arange(len(names) + 1),
        shares,
        cmap="YlGnBu",
        norm=PowerNorm(0.4, vmin=0, vmax=max(float(shares.max()), 1e-9)),
    )
    shown = range(0, len(steps), max(1, -(-len(steps) // 8)))
    axes.set_xticks(list(shown), [str(steps[i]) for i in shown])
    axes.set_yticks(np.arange(len(names)) + 0.5, [_bin_label(name) for name in names], fontsize=8.5)
    axes.set_xlabel("step")
    return image


def _bounds(name: str) -> tuple[float, float]:
    """The bounds that a bin's name carries after its last slash, written ``low..high``."""
    low, _, high = name.rsplit("/", 1)[-1].partition("..")
    return float(low), float(high)


def _bin_label(name: str) -> str:
    low, high = _bounds(name)
    if low == float("-inf"):
        return f"≤ {high:g}".replace("-", "−")
    if high == float("inf"):
        return f"> {low:g}".replace("-", "−")
    return f"{low:g} to {high:g}".replace("-", "−")
