"""The page of `sdar inspect`: episodes of one run to look through, token by token, in one file that works offline."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from sdar_verl.evaluation.files import write_atomic
from sdar_verl.manifest import read_manifest
from sdar_verl.report import html
from sdar_verl.report.episode import DECISION_GAP, colour
from sdar_verl.report.guards import guards_section
from sdar_verl.report.html import Html, tag
from sdar_verl.report.inspect_data import Episodes, read_episodes
from sdar_verl.report.run import MANIFEST, METRICS, Run, read_metrics

PAGE = "inspect.html"
LIMIT = 1000
_SHADES = 41  # colours from blue over white to orange; the script picks the nearest
_STEP_METRICS = {
    "success": "episode/success_rate",
    "panel": "val/success_rate",
    "gate": "sdar/gate_mean",
    "gap": "sdar/gap_mean",
    "valid": "episode/valid_action_share",
}


def build_page(run: Path | str, out: Path | str, *, limit: int = LIMIT) -> Path:
    """Read one run folder and write ``<out>/inspect.html``; the run may still be going.

    Args:
        run: the run's folder; nothing but its own files is read.
        out: folder of the page; made if missing.
        limit: most episodes in the page.

    Returns:
        Path of the page.

    Raises:
        ReportError: the folder is missing, no run or has no episodes.
        RecordError: a file is damaged elsewhere than at its end.
    """
    run, out = Path(run), Path(out)
    episodes = read_episodes(run, limit)
    manifest = read_manifest(run) if (run / MANIFEST).is_file() else {}
    name = run.resolve().name
    title = f"Episodes of {name}"
    facts = {
        "episodes": episodes.index,
        "steps": _steps(run, episodes),
        "shades": [colour(number / (_SHADES - 1)) for number in range(_SHADES)],
        "decision": DECISION_GAP,
    }
    content = html.page(
        title,
        tag("header", tag("h1", title), tag("p", *_about(manifest, episodes))),
        _notes(episodes),
        guards_section([Run(run, name)]),
        _controls(),
        tag(
            "div",
            tag("section", tag("p", id="count", class_="soft small"), tag("div", id="list"), id="side"),
            tag("section", tag("p", "Choose an episode."), id="episode"),
            id="panes",
        ),
        tag("div", id="tip", role="tooltip", hidden="hidden"),
        html.data("facts", facts),
        *(html.data(f"e{number}", detail) for number, detail in enumerate(episodes.details)),
        style=_resource("inspect.css"),
        script=_resource("inspect.js"),
    )
    write_atomic(out / PAGE, content)
    return out / PAGE


def _resource(name: str) -> str:
    return resources.files("sdar_verl.report").joinpath(name).read_text(encoding="utf-8")


def _about(manifest: dict[str, Any], episodes: Episodes) -> list[object]:
    sdar = (manifest.get("config") or {}).get("sdar") or {}
    parts: list[object] = [f"{len(episodes.index)} episodes, {episodes.with_tokens} of them with token scores"]
    if sdar.get("method"):
        parts += [", method ", tag("code", sdar["method"])]
    if manifest.get("started"):
        parts.append(f", started {manifest['started']}")
    return [*parts, "."]


def _notes(episodes: Episodes) -> Html | str:
    lines = []
    if episodes.total > len(episodes.index):
        lines.append(
            f"{len(episodes.index)} of {episodes.total} recorded episodes are shown: those with token scores, then "
            "others spread evenly over the steps. More: sdar inspect --limit."
        )
    if not episodes.with_tokens:
        lines.append(
            "This run recorded no token scores: it has no teacher (as with method=grpo), or "
            "sdar.record.token_episodes is 0. Answers are shown as text."
        )
    return tag("div", *(tag("p", line) for line in lines), class_="note") if lines else ""


def _steps(run: Path, episodes: Episodes) -> list[dict[str, float]]:
    """Every step of the shown episodes, with what the metrics say of it."""
    metrics = read_metrics(run / METRICS) if (run / METRICS).is_file() else {}
    found = []
    for step in sorted({entry["step"] for entry in episodes.index}):
        known = metrics.get(step, {})
        found.append({"step": step} | {k: round(known[m], 4) for k, m in _STEP_METRICS.items() if m in known})
    return found


def _controls() -> Html:
    """The filters; the script fills the lists and wakes them."""
    options = {
        "split": [("", "train and panel"), ("train", "train"), ("val", "panel")],
        "outcome": [("", "any outcome"), ("won", "won"), ("lost", "lost"), ("failed", "environment failed")],
        "type": [("", "every task type")],
        "sort": [
            ("step", "by step"),
            ("disagreement", "most disagreed"),
            ("invalid", "most invalid actions"),
            ("reward", "highest reward"),
            ("turns", "longest"),
        ],
    }
    labels = {"split": "Episodes", "outcome": "Outcome", "type": "Task type", "sort": "Order"}
    selects = [
        tag("label", labels[name], tag("select", *(tag("option", t, value=v) for v, t in values), id=name))
        for name, values in options.items()
    ]
    checks = [
        tag("label", Html(f'<input type="checkbox" id="{name}">'), label, class_="check")
        for name, label in (("invalid", "with invalid actions"), ("scored", "with token scores"))
    ]
    colours = [
        tag("label", Html(f'<input type="radio" name="colour" value="{name}"{checked}>'), label, class_="check")
        for name, label, checked in (("gap", "gap", " checked"), ("gate", "gate", ""))
    ]
    slider = tag(
        "div",
        tag("label", Html('<input type="checkbox" id="every" checked>'), "all steps", class_="check"),
        Html('<input type="range" id="step" min="0" value="0" aria-label="step">'),
        tag("output", id="at"),
        class_="slider",
    )
    task = tag("label", "Task", Html('<input type="search" id="task" placeholder="part of its name">'))
    legend = tag("div", tag("span", "Colour", class_="soft"), *colours, tag("span", id="legend"), class_="legend")
    return tag("section", tag("div", *selects, task, *checks, class_="filters"), slider, legend, id="controls")
