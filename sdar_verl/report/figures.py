"""The plots of a report. Each function takes runs and returns a figure, or None where nothing was logged for it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from sdar_verl.report.run import Run
from sdar_verl.report.timing import label, mean_phases, total_minutes

COLOURS = ("#2f6db3", "#d9762b", "#3a8f5c", "#8256a8", "#b23a48", "#5f6b7a")
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#b9c1cc",
    "axes.labelcolor": "#3b4654",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8ebf0",
    "xtick.color": "#5b6675",
    "ytick.color": "#5b6675",
    "text.color": "#1f2733",
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
}
_PHASE_COLOURS = (
    "#2f6db3 #d9762b #3a8f5c #8256a8 #b23a48 #c9a227 #4aa3a2 #d48fb0 #7d8b9c #a3794f #6c8ebf #9aa84f".split()
)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file's content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def validation(runs: Sequence[Run]) -> Figure | None:
    """Success on the panel over steps, with Wilson intervals as bands."""
    if not any(run.validation for run in runs):
        return None
    with rc_context(_STYLE):
        figure, (axes,) = _axes(1, 4.2)
        for run, colour in zip(runs, _colours(runs), strict=True):
            steps = sorted(run.validation)
            if not steps:
                continue
            rates = [run.validation[step].overall for step in steps]
            low, high = [rate.low for rate in rates], [rate.high for rate in rates]
            axes.plot(steps, [rate.rate for rate in rates], "-o", ms=5, color=colour, label=run.name)
            axes.fill_between(steps, low, high, color=colour, alpha=0.14, linewidth=0)
            if len(steps) == 1:  # a band needs two points
                axes.vlines(steps, low, high, color=colour, alpha=0.5)
        _success(axes, "Success on the validation panel")
        axes.legend(loc="best")
    return figure


def training(runs: Sequence[Run], window: int = 5) -> Figure | None:
    """Success of the training episodes per step (thin) and its trailing mean over `window` steps (thick)."""
    if not any(run.series("episode/success_rate")[0] for run in runs):
        return None
    with rc_context(_STYLE):
        figure, (axes,) = _axes(1, 3.8)
        for run, colour in zip(runs, _colours(runs), strict=True):
            steps, values = run.series("episode/success_rate")
            smooth = [float(np.mean(values[max(0, i + 1 - window) : i + 1])) for i in range(len(values))]
            axes.plot(steps, values, color=colour, alpha=0.3, linewidth=1)
            axes.plot(steps, smooth, color=colour, label=run.name)
        _success(axes, f"Success while training (thick: mean of the last {window} steps)")
        axes.legend(loc="best")
    return figure


def gate_and_gap(runs: Sequence[Run]) -> Figure | None:
    """Mean gate, mean gap and shares of tokens over steps; dashed lines are the decision tokens."""
    runs, colours = _distilling(runs)
    if not runs:
        return None
    with rc_context(_STYLE):
        figure, axes = _axes(3, 3.6)
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
                        panel.plot(steps, values, style, color=colour, label=named)
            panel.set_title(title)
            panel.set_xlabel("step")
            panel.legend(loc="best", fontsize=8.5)
        axes[0].axhline(0.5, color="#9aa4b1", linewidth=1)
        axes[1].axhline(0, color="#9aa4b1", linewidth=1)
        axes[2].set_ylim(0, 1)
        axes[2].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def histograms(runs: Sequence[Run]) -> Figure | None:
    """Heat maps: how the tokens of each step spread over the bins of gap and gate."""
    runs = [run for run in _distilling(runs)[0] if run.family("sdar/gap_hist/") and run.family("sdar/gate_hist/")]
    if not runs:
        return None
    with rc_context(_STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(11, 0.4 + 3.6 * len(runs)), layout="constrained")
        grid = figure.subplots(len(runs), 2, squeeze=False)
        for row, run in zip(grid, runs, strict=True):
            for axes, prefix, what in ((row[0], "sdar/gap_hist/", "Gap in nats"), (row[1], "sdar/gate_hist/", "Gate")):
                image = _heat_map(axes, run, prefix)
                axes.set_title(what if len(runs) == 1 else f"{run.name}: {what.lower()}")
                bar = figure.colorbar(image, ax=axes, format=PercentFormatter(1, decimals=0), pad=0.02)
                bar.set_label("share of tokens")
                bar.outline.set_visible(False)
    return figure


def wall_time(runs: Sequence[Run]) -> Figure | None:
    """Seconds of an average training step by phase, and minutes of the whole run, as stacked bars."""
    timed = [run for run in runs if run.series("timing_s/step")[0]]
    if not timed:
        return None
    per_step, in_total = [mean_phases(run) for run in timed], [total_minutes(run) for run in timed]
    phases = list(dict.fromkeys(phase for parts in (*per_step, *in_total) for phase in parts))
    colours = {phase: _PHASE_COLOURS[i % len(_PHASE_COLOURS)] for i, phase in enumerate(phases)} | {"other": "#d5dae1"}
    with rc_context(_STYLE):
        figure, axes = _axes(2, 1.9 + 0.55 * len(timed))
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
            panel.set_yticks(range(len(timed)), [run.name for run in timed])
            panel.invert_yaxis()
            panel.grid(axis="y", visible=False)
            panel.set_title(title)
        handles = [axes[0].barh(0, 0, color=colours[phase], label=label(phase)) for phase in phases]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(phases)), fontsize=9)
    return figure


def _axes(columns: int, height: float) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(11 if columns > 1 else 9.6, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for panel in axes:
        panel.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))
    return figure, axes


def _success(axes: Axes, title: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _colours(runs: Sequence[Run]) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(runs))]


def _distilling(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    pairs = [(run, colour) for run, colour in zip(runs, _colours(runs), strict=True) if run.distils]
    return [run for run, _ in pairs], [colour for _, colour in pairs]


def _heat_map(axes: Axes, run: Run, prefix: str):
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
