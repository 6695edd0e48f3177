"""The common look of all plots, and how a figure becomes a PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLOURS = ("#2f6db3", "#d9762b", "#3a8f5c", "#8256a8", "#b23a48", "#5f6b7a")
STYLE = {
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


def png(figure: Figure) -> bytes:
    """The figure as a PNG file's content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def axes_row(columns: int, height: float) -> tuple[Figure, Sequence[Axes]]:
    """A figure with `columns` plots side by side, `height` inches high, with whole numbers on the x axes."""
    figure = Figure(figsize=(11 if columns > 1 else 9.6, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for panel in axes:
        panel.set_xmargin(0.03)
        panel.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))
    return figure, axes


def colours_of(runs: Sequence[object]) -> list[str]:
    """One colour per run, by its place on the command line."""
    return [COLOURS[i % len(COLOURS)] for i in range(len(runs))]


def lone(steps: Sequence[int]) -> str | None:
    """A marker for a curve of one point, which would have no line to see."""
    return "o" if len(steps) == 1 else None
