"""A running job as seen in a terminal: what `sdar watch` shows. It reads the run's files and touches nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sdar_verl.evaluation.jsonl import read_lines
from sdar_verl.guards import FILE as GUARDS
from sdar_verl.manifest import read_manifest
from sdar_verl.report.run import MANIFEST, METRICS, ReportError, Run, read_metrics
from sdar_verl.report.timing import label, phases

ROWS = (  # name, metric, format
    ("success, training", "episode/success_rate", "{:.1%}"),
    ("success, panel", "val/success_rate", "{:.1%}"),
    ("reward", "episode/reward_mean", "{:.3f}"),
    ("valid actions", "episode/valid_action_share", "{:.1%}"),
    ("turns", "episode/turns", "{:.1f}"),
    ("gap, nats", "sdar/gap_mean", "{:+.4f}"),
    ("gate", "sdar/gate_mean", "{:.3f}"),
    ("gate > 0.5", "sdar/gate_active_ratio", "{:.1%}"),
    ("entropy, nats", "actor/entropy", "{:.4f}"),
    ("KL to reference", "actor/kl_loss", "{:.5f}"),
    ("gradient norm", "actor/grad_norm", "{:.3f}"),
    ("no advantage", "episode/zero_advantage_share", "{:.1%}"),
)
MEMORY = (
    ("accelerator, allocated", "actor/perf/max_memory_allocated_gb"),
    ("accelerator, reserved", "actor/perf/max_memory_reserved_gb"),
    ("host", "actor/perf/cpu_memory_used_gb"),
)
_RECENT = 10  # steps of the means
_BARS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_STILL = 120.0  # seconds without a new line before the run is said to be silent, at the least


@dataclass
class View:
    """What the files of a run say at one moment.

    Attributes:
        total: planned steps, None where no manifest says.
        findings: lines of ``guards.jsonl``.
        age: seconds since the last line of metrics, None before the first.
    """

    name: str
    method: str
    total: int | None
    run: Run
    findings: list[dict[str, Any]] = field(default_factory=list)
    age: float | None = None

    @property
    def step(self) -> int:
        """The last finished training step."""
        return max(self.run.metrics, default=0)

    @property
    def finished(self) -> bool:
        """Whether the last planned step is done, or a guard ended the run."""
        return self.stopped or (self.total is not None and self.step >= self.total)

    @property
    def stopped(self) -> bool:
        """Whether a guard that stops found something in the last step."""
        return any(line["action"] == "stop" and line["step"] == self.step for line in self.findings)

    @property
    def step_seconds(self) -> float | None:
        """Seconds of a recent step; its share of the evaluations between the steps included."""
        seconds = self.run.series("timing_s/step")[1]
        if not seconds:
            return None
        return fmean(seconds[-5:]) + sum(self.run.series("timing_s/testing")[1]) / len(seconds)

    @property
    def eta(self) -> float | None:
        """Seconds left, None where nothing tells."""
        if self.total is None or self.step_seconds is None:
            return None
        return max(0, self.total - self.step) * self.step_seconds

    @property
    def silent(self) -> bool:
        """Whether a next step is long overdue."""
        return not self.finished and self.age is not None and self.age > max(_STILL, 5 * (self.step_seconds or 0))


def look(folder: Path, now: float | None = None) -> View:
    """Read a run folder; raises `ReportError` if it is none."""
    if not folder.is_dir():
        raise ReportError(f"there is no run folder {folder}")
    metrics, manifest = folder / METRICS, folder / MANIFEST
    if not metrics.is_file() and not manifest.is_file():
        raise ReportError(f"{folder} holds neither {METRICS} nor {MANIFEST}: it is no run folder")
    config = read_manifest(folder).get("config") or {} if manifest.is_file() else {}
    total = (config.get("trainer") or {}).get("total_training_steps")
    name = folder.resolve().name
    view = View(name, str((config.get("sdar") or {}).get("method", "")), total, Run(folder, name))
    if metrics.is_file():
        view.run.metrics = read_metrics(metrics)
        if view.run.metrics:
            view.age = max(0.0, (time.time() if now is None else now) - metrics.stat().st_mtime)
    if (folder / GUARDS).is_file():
        view.findings = list(read_lines(folder / GUARDS))
    return view


def frame(view: View) -> RenderableType:
    """The whole picture."""
    parts: list[RenderableType] = [_head(view)]
    if view.run.metrics:
        parts += [_numbers(view.run), Group(*_below(view.run))]
    parts.append(_warnings(view))
    title = f"{view.name} ({view.method})" if view.method and view.method != view.name else view.name
    return Panel(Group(*parts), title=title, title_align="left")


def line(view: View) -> str:
    """The last step in one line, for a log."""
    parts = [f"step {view.step}/{view.total or '?'}"]
    for name, metric, shape in ROWS[:3] + ROWS[5:7]:
        value = view.run.metrics.get(view.step, {}).get(metric)
        if value is not None:
            parts.append(f"{name} {shape.format(value)}")
    if view.eta:
        parts.append(f"about {clock(view.eta)} left")
    parts += [f"guard {found['guard']}" for found in view.findings if found["step"] == view.step]
    return "; ".join(parts)


def spark(values: Sequence[float], width: int = 30) -> str:
    """The last `width` values as bars between their least and largest; of a constant, flat in the middle."""
    shown = list(values)[-width:]
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    if high == low:
        return _BARS[3] * len(shown)
    return "".join(_BARS[round((value - low) / (high - low) * (len(_BARS) - 1))] for value in shown)


def clock(seconds: float) -> str:
    """``2 h 05 min``, ``3 min 20 s`` or ``12 s``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _head(view: View) -> RenderableType:
    if not view.run.metrics:
        return Text("starting: no step and no evaluation is finished yet")
    words = [f"step {view.step} of {view.total if view.total is not None else '?'}"]
    if view.stopped:
        words.append("stopped by a guard")
    elif view.finished:
        words.append("finished")
    elif view.eta is not None:
        words.append(f"about {clock(view.eta)} left")
    if view.step_seconds is not None:
        words.append(f"{view.step_seconds:.1f} s a step")
    words.append(f"last news {clock(view.age or 0)} ago")
    bar = Table.grid()  # alone, a bar does not end its line
    bar.add_row(ProgressBar(total=max(1, view.total or 1), completed=view.step if view.total else 0, width=60))
    return Group(Text(", ".join(words)), bar)


def _numbers(run: Run) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name, side in (("", "left"), ("last", "right"), (f"mean of {_RECENT}", "right"), ("so far", "left")):
        table.add_column(name, justify=side, no_wrap=True)
    for name, metric, shape in ROWS:
        steps, values = run.series(metric)
        if values:
            at = "" if steps[-1] == max(run.metrics) else f" (step {steps[-1]})"
            recent = shape.format(fmean(values[-_RECENT:]))
            table.add_row(name, shape.format(values[-1]) + at, recent, spark(values))
    return table


def _below(run: Run) -> list[RenderableType]:
    last = run.metrics[max(run.metrics)]
    timed = {label(name): last[f"timing_s/{name}"] for name in phases(run) if last.get(f"timing_s/{name}", 0) >= 0.05}
    found: list[RenderableType] = []
    if timed:
        ordered = sorted(timed.items(), key=lambda item: -item[1])
        found.append(Text("time     " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in ordered)))
    memory = [f"{name} {last[metric]:.1f} GB" for name, metric in MEMORY if last.get(metric, 0) > 0]
    if memory:
        found.append(Text("memory   " + ", ".join(memory)))
    return found


def _warnings(view: View) -> RenderableType:
    newest = {found["guard"]: found for found in view.findings}  # the last of each guard
    lines = [
        Text(f"guard {name}, step {found['step']}: {found['message']}", style="bold red" if now else "yellow")
        for name, found in newest.items()
        for now in [found["step"] == view.step]
    ]
    last = view.run.metrics.get(view.step, {})
    if last.get("episode/failed_share", 0) > 0:
        lines.append(Text(f"{last['episode/failed_share']:.1%} of the episodes failed in their environment", "yellow"))
    if view.silent:
        lines.append(Text(f"no news for {clock(view.age or 0)}: is the run still going?", style="yellow"))
    return Group(*lines) if lines else Text("no warnings", style="dim")
