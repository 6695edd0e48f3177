"""Reads a run folder for a report. A run that is still going or was cut off can be read; the gaps are named."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdar_verl.errors import SdarError
from sdar_verl.evaluation.intervals import Rate
from sdar_verl.evaluation.jsonl import read_lines, read_records
from sdar_verl.evaluation.panel import Panel, PanelError
from sdar_verl.evaluation.records import EpisodeRecord, TokenRecord, from_dict
from sdar_verl.evaluation.summary import Summary, curve
from sdar_verl.manifest import read_manifest

METRICS, PANEL, MANIFEST, TOKENS, VALIDATION, TRAINING = (
    "metrics.jsonl",
    "panel.json",
    "manifest.json",
    "tokens.jsonl",
    "episodes/val.jsonl",
    "episodes/train.jsonl",
)
_MANY = 8  # changed settings; above, they are counted


class ReportError(SdarError):
    """No report can be made of these folders; the message says why."""


@dataclass
class Run:
    """What one run folder tells.

    Attributes:
        name: short and unique among the runs of a report.
        metrics: training step to metric name to value; only finite numbers.
        validation: step to success on the whole panel.
        tokens: the sampled episodes with token scores.
        panel, manifest: None where the run left none.
        warnings: what is missing or was left out, in plain words.
        cut: it has later steps than were asked for.
    """

    path: Path
    name: str
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    validation: dict[int, Summary] = field(default_factory=dict)
    tokens: list[TokenRecord] = field(default_factory=list)
    panel: Panel | None = None
    manifest: Mapping[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    cut: bool = False

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one metric, where it was logged."""
        steps = [step for step in sorted(self.metrics) if name in self.metrics[step]]
        return steps, [self.metrics[step][name] for step in steps]

    def observations(self, record: TokenRecord) -> list[str]:
        """What the environment said before each turn of a sampled episode, in the record itself or in its episode's.

        Rows of single turns carry no observation tokens; then the training episodes have the text. Turns without any
        text are empty.
        """
        own = [turn.observation for turn in record.turns]
        path = self.path / TRAINING
        if any(own) or not path.is_file():
            return own
        for line in read_lines(path):
            if (line.get("step"), line.get("uid"), line.get("session")) == (record.step, record.uid, record.session):
                played = [turn.observation for turn in from_dict(EpisodeRecord, line).turns]
                return played if len(played) == len(own) else own
        return own

    def family(self, prefix: str) -> list[str]:
        """Names of all metrics that start with `prefix`, in the order in which they were first logged."""
        names: dict[str, None] = {}
        for step in sorted(self.metrics):
            names |= dict.fromkeys(name for name in self.metrics[step] if name.startswith(prefix))
        return list(names)

    @property
    def distils(self) -> bool:
        """True if the run logged a gap, that is, if a teacher took part."""
        return bool(self.series("sdar/gap_mean")[0])

    @property
    def rates(self) -> dict[int, Rate]:
        """Overall success per evaluated step; without step 0 once there is a later one."""
        later = {step: summary.overall for step, summary in self.validation.items() if step > 0}
        return later or {step: summary.overall for step, summary in self.validation.items()}


def load_runs(paths: Sequence[Path | str], *, tokens: bool = True, until: int | None = None) -> list[Run]:
    """Read all folders, the token scores too if wanted, and make sure that their numbers may stand side by side.

    Args:
        until: last step to read; later ones are taken as if they had not been made. None for all.

    Raises:
        ReportError: no folder, the same one twice, one that is no run, or runs with different panels.
    """
    folders = [Path(path) for path in paths]
    if not folders:
        raise ReportError("name at least one run folder")
    if len({folder.resolve() for folder in folders}) != len(folders):
        raise ReportError("the same run folder was named twice")
    named = zip(folders, _short_names(folders), strict=True)
    runs = [load_run(folder, name, tokens=tokens, until=until) for folder, name in named]
    _require_one_panel([run for run in runs if run.panel is not None])
    if len(runs) > 1 and any(run.panel is None for run in runs):
        missing = ", ".join(run.name for run in runs if run.panel is None)
        raise ReportError(f"no {PANEL} in {missing}: without it nobody can tell whether the runs may be compared")
    return runs


def _require_one_panel(runs: Sequence[Run]) -> None:
    """Raise `PanelError` that names the runs of each panel, and how the first two panels differ."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.panel.short_hash, []).append(run)
    if len(groups) > 1:
        named = "; ".join(f"{panel}: {', '.join(run.name for run in own)}" for panel, own in groups.items())
        first, second = (own[0] for own in list(groups.values())[:2])
        try:
            first.panel.require_same(second.panel, first.name, second.name)
        except PanelError as error:
            raise PanelError(f"{error}. Runs of each panel: {named}") from None


def load_run(folder: Path, name: str, *, tokens: bool = True, until: int | None = None) -> Run:
    """Read one folder; raises `ReportError` if it is missing or holds neither metrics nor validation episodes."""
    if not folder.is_dir():
        raise ReportError(f"there is no run folder {folder}")
    if not any((folder / file).is_file() and (folder / file).stat().st_size for file in (METRICS, VALIDATION)):
        raise ReportError(
            f"{folder} holds neither {METRICS} nor {VALIDATION}: it is no run folder, or the run has not got so far; "
            "name the folder that the training wrote"
        )
    run = Run(folder, name)
    if _there(run, PANEL, "its panel cannot be shown"):
        run.panel = Panel.load(folder / PANEL)
    if _there(run, MANIFEST, "versions and settings are unknown"):
        run.manifest = read_manifest(folder)
        run.warnings += _changes(run.manifest, until)
    if _there(run, METRICS, "there are no training curves"):
        run.metrics = _up_to(until, run, read_metrics(folder / METRICS))
    if _there(run, VALIDATION, "there is no validation curve"):
        run.validation = _read_validation(run, folder / VALIDATION, until)
    if tokens and (folder / TOKENS).is_file():
        run.tokens = [own for own in read_records(folder / TOKENS, TokenRecord) if until is None or own.step <= until]
    _warn_if_cut_short(run, until)
    return run


def _up_to(until: int | None, run: Run, by_step: dict[int, Any]) -> dict[int, Any]:
    kept = {step: own for step, own in by_step.items() if until is None or step <= until}
    run.cut |= len(kept) < len(by_step)
    return kept


def read_metrics(path: Path) -> dict[int, dict[str, float]]:
    """Step to metric name to value of a ``metrics.jsonl``; raises `ReportError` at a line of another kind."""
    steps: dict[int, dict[str, float]] = {}
    for line in read_lines(path):
        step, data = line.get("step"), line.get("data")
        if type(step) is not int or not isinstance(data, dict):
            raise ReportError(f'{path} has a line that is not {{"step": number, "data": {{...}}}}: {str(line)[:120]}')
        steps.setdefault(step, {}).update({k: float(v) for k, v in data.items() if _is_number(v)})
    return steps


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read_validation(run: Run, path: Path, until: int | None) -> dict[int, Summary]:
    evaluations = _up_to(until, run, curve(read_records(path, EpisodeRecord)))
    if run.panel is None:
        return evaluations
    wanted = {task.id for task in run.panel.tasks}
    whole = {}
    for step, summary in evaluations.items():
        foreign = sorted(summary.by_task.keys() - wanted)
        if foreign:
            raise ReportError(f"{run.name} evaluated tasks outside its panel at step {step}, such as {foreign[0]}")
        if missing := len(wanted) - len(summary.by_task):
            text = f"the evaluation at step {step} lacks {missing} of {len(wanted)} panel tasks and is left out"
            run.warnings.append(text)
            continue
        whole[step] = summary
        if summary.failed:
            run.warnings.append(f"at step {step}, {summary.failed} validation episodes failed and count as not won")
    return whole


def _there(run: Run, file: str, otherwise: str) -> bool:
    if (run.path / file).is_file():
        return True
    run.warnings.append(f"{file} is missing: {otherwise}")
    return False


def _changes(manifest: Mapping[str, Any], until: int | None) -> Iterator[str]:
    """What changed while the run went on, in plain words."""
    for start in manifest.get("earlier", ()):
        step = start["until_step"]
        if not start["changed"] or (until is not None and step is not None and step >= until):
            continue
        named = [f"{key} {before} -> {after}" for key, (before, after) in start["changed"].items()]
        more = f" and {len(named) - _MANY} more" if len(named) > _MANY else ""
        since = "a named checkpoint" if step is None else f"step {step}"
        yield f"from {since} on it is not what it was before: {', '.join(named[:_MANY])}{more}"


def _warn_if_cut_short(run: Run, until: int | None) -> None:
    planned = ((run.manifest or {}).get("config") or {}).get("trainer", {}).get("total_training_steps")
    reached = max(run.metrics, default=0)
    if isinstance(planned, int) and reached < (planned if until is None else min(planned, until)):
        run.warnings.append(f"step {reached} of {planned} was reached; the run is still going or was stopped")


def _short_names(folders: Sequence[Path]) -> list[str]:
    """The fewest last parts of each path that tell the folders apart."""
    parts = [folder.resolve().parts for folder in folders]
    depth = 1
    while len({path[-depth:] for path in parts}) < len(parts):
        depth += 1
    return ["/".join(path[-depth:]) for path in parts]
