"""A plan as one picture: memory by phase, a step by phase, cost by instance."""

from __future__ import annotations

from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sdar_verl.plan.memory import PARTS
from sdar_verl.plan.planning import Plan
from sdar_verl.plan.table import PHASE_NAMES
from sdar_verl.plan.units import GIB, PlanError
from sdar_verl.report.style import COLOURS, STYLE, png

_PART_COLOURS = dict(
    zip(
        PARTS,
        "#2f6db3 #8fb4dc #5f6b7a #1f4a78 #bcd3ea #8a94a1 #c9a227 #8256a8 #3a8f5c #9cc9ad #cfe5d6 #d9762b #b23a48 "
        "#e3b089 #c4cad2".split(),
        strict=True,
    )
)


def write_chart(plan: Plan, path: Path) -> None:
    """Write the picture as a PNG; raises `PlanError` if the place cannot be written."""
    try:
        path.write_bytes(png(draw(plan)))
    except OSError as error:
        raise PlanError(f"cannot write the chart to {path}: {error}") from error


def draw(plan: Plan) -> Figure:
    """The figure."""
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 8.6), layout="constrained")
        grid = figure.add_gridspec(2, 2, height_ratios=(1.15, 1))
        _memory(figure.add_subplot(grid[0, :]), plan)
        _time(figure.add_subplot(grid[1, 0]), plan)
        _cost(figure.add_subplot(grid[1, 1]), plan)
        figure.suptitle(f"{plan.job.model.name}, {plan.job.method}, on {plan.instance.name}", fontsize=13, x=0.01,
                        ha="left", fontweight="bold")  # fmt: skip
    return figure


def _memory(axes: Axes, plan: Plan) -> None:
    phases = list(plan.memory.phases)
    for part in PARTS:
        sizes = [plan.memory.phases[phase].get(part, 0.0) / GIB for phase in phases]
        if any(sizes):
            start = [sum(plan.memory.phases[phase].get(p, 0.0) for p in PARTS[: PARTS.index(part)]) / GIB
                     for phase in phases]  # fmt: skip
            axes.barh(phases, sizes, left=start, color=_PART_COLOURS[part], label=part, height=0.62,
                      edgecolor="white", linewidth=0.7)  # fmt: skip
    size = plan.instance.gpu_bytes / GIB
    axes.axvline(size, color="#1f2733", linewidth=1.5, linestyle="--")
    axes.annotate(f"{size:.1f} GiB", (size, 1.0), xycoords=("data", "axes fraction"), xytext=(-4, -3),
                  textcoords="offset points", ha="right", va="top", fontsize=9)  # fmt: skip
    for place, phase in enumerate(phases):
        total = plan.memory.total(phase) / GIB
        axes.text(total + 0.008 * size, place, f"{total:.1f}", va="center", fontsize=9)
    axes.set_xlim(0, 1.08 * max(size, plan.memory.peak / GIB))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_title("Memory of one GPU, GiB")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=6, fontsize=9, columnspacing=1.2)


def _time(axes: Axes, plan: Plan) -> None:
    names = [PHASE_NAMES[name] for name in plan.times.phases]
    seconds = list(plan.times.phases.values())
    axes.barh(names, seconds, color=COLOURS[0], height=0.62)
    for place, value in enumerate(seconds):
        axes.text(value + 0.01 * max(seconds), place, f"{value:.0f} s", va="center", fontsize=9)
    axes.set_xlim(0, 1.15 * max(seconds))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    kind = "measured" if plan.rates.measured else "not calibrated"
    axes.set_title(f"A step of {plan.times.step:.0f} s ({kind})")


def _cost(axes: Axes, plan: Plan) -> None:
    rows = [option for option in plan.options if option.cost is not None][:10]
    axes.set_title("Cost of the run, USD (hatched: with changes)")
    axes.grid(axis="y", visible=False)
    for place, option in enumerate(rows):
        hatch = "///" if option.overrides else None
        for market, shift, colour in (("on_demand", -0.2, COLOURS[0]), ("spot", 0.2, COLOURS[1])):
            value = getattr(option.cost, market)
            if value is not None:
                label = market.replace("_", " ") if place == 0 else None
                axes.barh(place + shift, value, color=colour, height=0.38, hatch=hatch, edgecolor="white", label=label)
                axes.text(value, place + shift, f" {value:,.0f}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [option.instance.name for option in rows])
    axes.invert_yaxis()
    axes.set_xmargin(0.15)
    if rows:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, fontsize=9)
