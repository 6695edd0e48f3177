"""The report of one or several runs: one HTML file that works offline, and its plots as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from sdar_verl.evaluation.files import write_atomic
from sdar_verl.evaluation.summary import milestones
from sdar_verl.report import compare, episode, figures, html, origin, teacher_figures, words
from sdar_verl.report.guards import guards_section
from sdar_verl.report.html import Html, tag
from sdar_verl.report.plots import Plots
from sdar_verl.report.run import Run, load_runs
from sdar_verl.report.style import colours_of

PAGE = "report.html"


def build_report(
    runs: Sequence[Path | str], out: Path | str, *, last_k: int = 3, title: str = "SDAR run report"
) -> Path:
    """Read the run folders and write ``<out>/report.html`` and ``<out>/plots/*.png``.

    Args:
        runs: 1 to N run folders of one panel; the first is the one that the others are compared with.
        out: folder of the report; made if missing.
        last_k: how many of the last evaluations are averaged.
        title: heading of the page.

    Returns:
        Path of the page.

    Raises:
        ReportError: a folder is missing, empty or no run.
        PanelError: the runs were evaluated on different panels.
        RecordError: a file is damaged elsewhere than at its end.
    """
    loaded = load_runs(runs)
    out = Path(out)
    draw = Plots(out / "plots", loaded)
    content = html.page(
        title,
        _header(title, loaded),
        _warnings(loaded),
        _findings(loaded, last_k),
        _success(loaded, last_k, draw),
        _teacher(loaded, draw),
        guards_section(loaded),
        _episode(loaded),
        _time(loaded, draw),
        html.section(
            "origin",
            "What was run",
            origin.panel_line(loaded),
            origin.settings_table(loaded),
            tag("h3", "Versions and seeds"),
            origin.versions_table(loaded),
        ),
    )
    write_atomic(out / PAGE, content)
    return out / PAGE


def _header(title: str, runs: Sequence[Run]) -> Html:
    panel = next((run.panel for run in runs if run.panel is not None), None)
    parts = [", ".join(run.name for run in runs)]
    if panel is not None:
        parts += [". ", "Panel ", tag("code", panel.short_hash), f" ({len(panel)} tasks of {panel.env}/{panel.split})"]
    return tag("header", tag("h1", title), tag("p", *parts, "."))


def _warnings(runs: Sequence[Run]) -> Html | str:
    found = [f"{run.name}: {warning}." for run in runs for warning in run.warnings]
    if not found:
        return ""
    return tag(
        "div", tag("p", tag("b", "Look at this first")), tag("ul", *(tag("li", line) for line in found)), class_="note"
    )


def _findings(runs: Sequence[Run], last_k: int) -> Html:
    cards = []
    for run, colour in zip(runs, colours_of(runs), strict=True):
        if run.validation:
            found = milestones(run.rates, last_k)
            lines = [
                tag("span", f"mean of last {found.k}: 95 % interval"),
                tag("span", f"{100 * found.mean_last.low:.0f} to {100 * found.mean_last.high:.0f} %"),
            ]
            style = f"border-top-color:{colour}"
            cards.append(
                tag(
                    "div", run.name, tag("b", compare.percent(found.mean_last.rate)), *lines, class_="card", style=style
                )
            )
    comparisons = _comparisons(runs, last_k)
    sentences = [words.learning(run, last_k) for run in runs] + [words.verdict(found) for found in comparisons]
    sentences.append(words.chance_at_start(runs))
    return html.section(
        "findings",
        "What this shows",
        tag("div", *cards, class_="cards"),
        *(tag("p", sentence) for sentence in sentences if sentence),
        tag("div", tag("p", words.caveat(runs)), class_="note"),
    )


def _success(runs: Sequence[Run], last_k: int, draw: Plots) -> Html:
    comparisons = _comparisons(runs, last_k)
    return html.section(
        "success",
        "Success",
        draw(
            "validation",
            figures.validation,
            "Success rate on the validation panel over training steps",
            "Every evaluation plays the same tasks in the same order. Bands are 95 % Wilson intervals over tasks.",
        ),
        compare.milestone_table(runs, last_k),
        tag(
            "p",
            "Last is what the run leaves behind. Best is picked after looking at all evaluations, so it flatters. The "
            "mean of the last evaluations smooths the noise of a single one; its interval counts each task once.",
            class_="soft small",
        ),
        *([tag("h3", "Paired differences"), compare.difference_table(comparisons)] if comparisons else []),
        tag("h3", "By task type, at the last evaluation"),
        compare.type_table(runs) or tag("p", "No validation yet."),
        draw("training", figures.training, "Success rate of the training episodes over steps"),
    )


def _teacher(runs: Sequence[Run], draw: Plots) -> Html | str:
    if not any(run.distils for run in runs):
        return ""
    lead = (
        "The gap is the teacher's log-probability of a sampled token minus the student's, in nats; the gate, where the "
        "method has one, is the token's weight in the distillation term. Most tokens are not in doubt and have a gap "
        "near zero and a gate near one half, so the decision tokens, on which the two differ by more than 0.1 nats, "
        "are shown apart. On the student's own tokens the mean gap is negative by construction."
    )
    return html.section(
        "teacher",
        "What the teacher said",
        tag("p", lead),
        draw(
            "gate_and_gap", teacher_figures.gate_and_gap, "Mean gate, mean gap and shares of tokens over training steps"
        ),
        draw(
            "histograms",
            teacher_figures.histograms,
            "Heat maps of the distribution of gap and gate over training steps",
            "Each column is one step and adds up to 100 %. The colour scale is stretched to show rare bins.",
        ),
    )


def _episode(runs: Sequence[Run]) -> Html | str:
    parts: list[Html] = []
    for run in runs:
        record = episode.choose(run.tokens)
        if record is None:
            continue
        if sum(bool(other.tokens) for other in runs) > 1:
            parts.append(tag("h3", run.name))
        parts += [
            episode.render(record, run.observations(record)),
            tag("h3", "What the two saw before the first answer"),
            episode.prompts(record),
        ]
        first = min(run.tokens, key=lambda r: (r.step, -episode.decisions(r)))
        if first.step < record.step:
            parts.append(
                tag(
                    "details",
                    tag("summary", f"An episode of step {first.step}"),
                    episode.render(first, run.observations(first)),
                )
            )
    if not parts:
        return ""
    rule = "Shown is the latest recorded step's won episode, if there is one, with the most decision tokens."
    return html.section("episode", "One episode, token by token", tag("p", rule, class_="soft small"), *parts)


def _time(runs: Sequence[Run], draw: Plots) -> Html | str:
    bars = draw("wall_time", figures.wall_time, "Stacked bars of wall time per phase for each run")
    if not bars:
        return ""
    return html.section("time", "Where the time went", bars, tag("p", words.cost(runs)))


def _comparisons(runs: Sequence[Run], last_k: int) -> list[compare.Comparison]:
    return [found for a, b in combinations(runs, 2) if (found := compare.compare(a, b, last_k)) is not None]
