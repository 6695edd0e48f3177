"""The comparison as one HTML page that works offline, as Markdown tables, and as a small table of raw numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdar_verl.compare import figures, tables, words
from sdar_verl.compare.arms import Comparison, load
from sdar_verl.compare.numbers import Against, equal_steps, equal_time, milestone_values, training_seconds
from sdar_verl.compare.table import Table, plain
from sdar_verl.compare.tables import count
from sdar_verl.errors import ConfigError
from sdar_verl.evaluation.files import write_atomic
from sdar_verl.evaluation.paired import mean_interval
from sdar_verl.report import html, origin
from sdar_verl.report.compare import percent
from sdar_verl.report.html import Html, tag
from sdar_verl.report.plots import Plots

PAGE, MARKDOWN, NUMBERS = "compare.html", "compare.md", "evaluations.csv"
_MANY = 12  # runs; above, the versions of each would make a table that nobody reads


@dataclass(frozen=True)
class _Shown:
    """What both forms of the page are made of."""

    found: Comparison
    steps: list[Against]
    time: list[Against]
    k: int
    price: float | None

    def tables(self) -> dict[str, Table]:
        found, k = self.found, self.k
        return {
            "success": tables.milestones_table(found, k),
            "steps": tables.difference_table("Differences at equal steps", self.steps, k),
            "time": tables.difference_table("Differences at equal training time", self.time, k),
            "types": tables.type_table(found, k),
            "signals": tables.signal_table(found),
            "cost": tables.cost_table(found, self.price),
        }

    @property
    def warnings(self) -> list[str]:
        waiting = [f"{own.arm}, seed {own.seed}: {own.reason or 'nothing measured yet'}" for own in self.found.pending]
        return self.found.warnings + words.left_out(self.found, self.steps, self.time) + waiting

    @property
    def findings(self) -> list[str]:
        return [words.verdict(own) for own in [*self.steps, *self.time]]


def build_comparison(
    targets: Sequence[str],
    out: Path | str,
    *,
    baseline: str | None = None,
    only: Sequence[str] = (),
    until: int | None = None,
    last_k: int = 3,
    price: float | None = None,
    title: str = "SDAR comparison",
    about: str = "",
) -> Path:
    """Read the runs and write ``compare.html``, ``compare.md``, ``evaluations.csv`` and ``plots/*.png`` into `out`.

    Args:
        targets: as `sdar_verl.compare.arms.load` takes them.
        out: folder of the page; made if missing.
        baseline: arm that the others are compared with.
        only: arms to show; empty for all.
        until: last step to look at; None for all.
        last_k: how many of the last evaluations are averaged.
        price: of an hour of the machine, in any currency; None leaves the cost out.
        title: heading of the page.
        about: what is asked; empty takes the words of the comparison's file.

    Returns:
        Path of the page.

    Raises:
        SdarError: a folder is no run, the panels differ, a file is damaged; nothing was written.
    """
    if price is not None and not 0 <= price < float("inf"):
        raise ConfigError(f"--price {price:g} must be a finite number from 0")
    found = load(targets, baseline, only, until)
    found.about = about or found.about
    shown = _Shown(found, equal_steps(found, last_k), equal_time(found, last_k), last_k, price)
    out = Path(out)
    write_atomic(out / PAGE, _page(shown, title, Plots(out / "plots", found)))
    write_atomic(out / MARKDOWN, _markdown(shown, title))
    write_atomic(out / NUMBERS, _numbers(found))
    return out / PAGE


def _page(shown: _Shown, title: str, draw: Plots[Comparison]) -> str:
    found, table = shown.found, shown.tables()
    return html.page(
        title,
        _header(found, title),
        _warnings(shown.warnings),
        _findings(shown),
        _success(shown, table, draw),
        html.section(
            "types", "By task type", tag("p", f"Mean of the last {shown.k} evaluations."), table["types"].html
        ),
        html.section(
            "signals",
            "How the runs are doing",
            draw("signals", figures.signals, "Small plots of what is measured in each step, over steps, by arm"),
            tag("h3", table["signals"].title),
            table["signals"].html,
        ),
        html.section(
            "time",
            "Where the time went",
            draw("time", figures.time_parts, "Stacked bars of wall time per phase for each arm"),
            table["cost"].html,
        ),
        _origin(found),
        style="td small { white-space: nowrap; }\n",
    )


def _header(found: Comparison, title: str) -> Html:
    panel = next((run.panel for run in found.runs if run.panel is not None), None)
    parts: list[object] = [f"{count(len(found.arms), 'arm')}, {count(len(found.runs), 'run')}. "]
    if panel is not None:
        parts += ["Panel ", tag("code", panel.short_hash), f": {len(panel)} tasks of {panel.env}/{panel.split}. "]
    if found.until is not None:
        parts.append(words.UNTIL.format(step=found.until))
    return tag("header", tag("h1", title), tag("p", *parts), *([tag("p", found.about)] if found.about else []))


def _warnings(lines: Sequence[str]) -> Html | str:
    if not lines:
        return ""
    items = tag("ul", *(tag("li", f"{line}.") for line in lines))
    return tag("div", tag("p", tag("b", "Look at this first")), items, class_="note", id="warnings")


def _findings(shown: _Shown) -> Html:
    cards = []
    for arm, (colour, _) in zip(shown.found.arms, figures.looks(shown.found.arms), strict=True):
        if values := milestone_values(arm, shown.k)["mean of last"]:
            mean, low, high = mean_interval(values)
            seeds = f"{len(values)} seeds: {100 * max(low, 0):.0f} to {100 * min(high, 1):.0f} %"
            notes = [tag("span", f"mean of the last {shown.k}"), tag("span", seeds if len(values) > 1 else "1 seed")]
            style = f"border-top-color:{colour}"
            cards.append(tag("div", arm.name, tag("b", percent(mean)), *notes, class_="card", style=style))
    caveat = words.caveat(shown.found, shown.steps)
    return html.section(
        "findings",
        "What this shows",
        tag("div", *cards, class_="cards"),
        *(tag("p", sentence) for sentence in shown.findings),
        tag("div", tag("p", caveat), class_="note") if caveat else "",
    )


def _success(shown: _Shown, table: dict[str, Table], draw: Plots[Comparison]) -> Html:
    ways = [("equal steps", shown.steps), ("equal training time", shown.time)]
    return html.section(
        "success",
        "Success",
        draw(
            "curves",
            figures.learning_curves,
            "Success on the panel over training steps, by arm",
            "Thin: one seed. Thick: their mean, with its 95 % t-interval over seeds (of one seed: Wilson over tasks).",
        ),
        table["success"].html,
        tag("p", words.BEST, class_="soft small"),
        tag("h3", table["steps"].title),
        draw("differences", lambda _: figures.differences(ways), "Paired differences of each arm with their intervals"),
        table["steps"].html,
        tag("p", words.METHOD, class_="soft small"),
        tag("h3", table["time"].title),
        draw("time_curves", figures.time_curves, "Success on the panel over minutes of training, by arm"),
        table["time"].html,
        tag("p", words.EQUAL_TIME, class_="soft small"),
    )


def _origin(found: Comparison) -> Html:
    rows = [
        [arm.name, ", ".join(map(str, arm.runs)), ", ".join(sorted(arm.changes)) if arm.changes is not None else "-"]
        for arm in found.arms
    ]
    firsts = [next(iter(arm.runs.values())) for arm in found.arms]
    return html.section(
        "origin",
        "What was run",
        origin.panel_line(found.runs),
        html.table(["arm", "seeds", "settings it is about"], rows, numbers_from=99),
        tag("p", "Below: the first seed of each arm.", class_="soft small"),
        origin.settings_table(firsts),
        tag("details", tag("summary", "Versions and seeds"), origin.versions_table(found.runs[:_MANY])),
    )


def _markdown(shown: _Shown, title: str) -> str:
    found = shown.found
    panel = next((run.panel for run in found.runs if run.panel is not None), None)
    parts = [f"# {plain(title)}\n"]
    if found.about:
        parts.append(f"{plain(found.about)}\n")
    if panel is not None:
        parts.append(f"Panel `{panel.short_hash}`: {len(panel)} tasks of {panel.env}/{panel.split}.\n")
    if found.until is not None:
        parts.append(words.UNTIL.format(step=found.until) + "\n")
    lines = [*shown.findings, words.caveat(found, shown.steps)]
    parts.append("\n".join(f"- {plain(line)}" for line in lines if line) + "\n")
    if shown.warnings:
        parts.append("Look at this first:\n\n" + "\n".join(f"- {plain(line)}." for line in shown.warnings) + "\n")
    parts += [table.markdown for table in shown.tables().values()]
    parts += ["## How to read it\n", f"{words.METHOD}\n", f"{words.BEST}\n", words.EQUAL_TIME]
    return "\n".join(parts) + "\n"


def _numbers(found: Comparison) -> str:
    """One line per evaluation: enough to draw the curves and to take the means again."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "seed", "step", "success", "tasks", "training_seconds"])
    for arm in found.arms:
        for seed, run in arm.runs.items():
            clock = training_seconds(run)
            for step, summary in sorted(run.validation.items()):
                spent = f"{clock[step]:.1f}" if step in clock else ""
                writer.writerow([arm.name, seed, step, f"{summary.overall.rate:.6f}", summary.overall.n, spent])
    return text.getvalue()
