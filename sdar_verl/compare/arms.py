"""Run folders as arms: which runs are the same but for their seed, and what makes a comparison doubtful."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sdar_verl.compare import state
from sdar_verl.compare.doubts import doubts, settings_of
from sdar_verl.report.run import METRICS, VALIDATION, ReportError, Run, load_runs


@dataclass
class ArmRuns:
    """The runs of one arm.

    Attributes:
        name: of the arm.
        runs: by seed, in ascending order.
        changes: configuration keys that the arm is about; None where nobody wrote them down.
        seconds: by seed, wall time of the whole run, where it was measured and the run finished.
    """

    name: str
    runs: dict[int, Run]
    changes: frozenset[str] | None = None
    seconds: dict[int, float] = field(default_factory=dict)


@dataclass
class Comparison:
    """Arms that may stand side by side.

    Attributes:
        arms: the first is the one that the others are compared with.
        about: what is asked, if anybody said.
        warnings: what makes the comparison doubtful, in plain words.
        pending: runs of a comparison that have nothing to show yet.
        until: last step that is looked at, if not all are.
    """

    arms: list[ArmRuns]
    about: str = ""
    warnings: list[str] = field(default_factory=list)
    pending: list[state.RunState] = field(default_factory=list)
    until: int | None = None

    @property
    def runs(self) -> list[Run]:
        """All runs, arm by arm."""
        return [run for arm in self.arms for run in arm.runs.values()]


def load(
    targets: Sequence[str], baseline: str | None = None, only: Sequence[str] = (), until: int | None = None
) -> Comparison:
    """Read run folders and comparison folders.

    Args:
        targets: each a folder that `sdar compare run` made, a run folder, or ``NAME=FOLDER`` to say of which arm a run
            is. Runs that name no arm are of one arm when their configurations differ in seeds and places only.
        baseline: name of the arm to compare with; None takes that of the comparison's file, or the first.
        only: names of the arms to show; empty for all.
        until: last step to look at; None for all. Later ones are taken as if they had not been made.

    Raises:
        ReportError: nothing to read, an arm has a seed twice, or the baseline or one of `only` is no arm.
        PanelError: the runs were evaluated on different panels; the message says which.
    """
    found = Comparison([], until=until)
    entries: list[tuple[Path, dict[str, Any]]] = []
    for target in targets:
        folder, name = split_target(target)
        if name is None and (folder / state.FILE).is_file():
            saved = state.read(folder)
            found.about = found.about or saved.about
            if not only or saved.baseline in only:
                baseline = baseline or saved.baseline
            entries += _of_sweep(folder, saved, found.pending)
        else:
            own = _arm_file(folder)
            entries.append((folder, own | ({"arm": name} if name else {})))
    if only:  # before anything else is read of the others
        labels = {own["arm"] for _, own in entries if "arm" in own} | {own.arm for own in found.pending}
        if all("arm" in own for _, own in entries):
            _require(only, labels)
        entries = [(folder, own) for folder, own in entries if own.get("arm", only[0]) in only]
    if not entries:
        why = {f"{own.status}{': ' + own.reason if own.reason else ''}" for own in found.pending}
        raise ReportError(f"none of the {len(found.pending)} runs has measured anything yet ({'; '.join(sorted(why))})")
    runs = load_runs([folder for folder, _ in entries], tokens=False, until=until)
    found.arms = _grouped(runs, [own for _, own in entries])
    if any(run.cut for run in runs):  # nobody measured how long these took up to there, so none can be compared
        for arm in found.arms:
            arm.seconds.clear()
    _choose(found, only)
    names = [arm.name for arm in found.arms]
    if baseline is not None and baseline not in names:
        if baseline not in {own.arm for own in found.pending}:
            raise ReportError(f"there is no arm {baseline!r} to compare with; arms: {', '.join(names)}")
        found.warnings.append(f"{baseline}, the arm to compare with, has no run yet; {names[0]} stands in for it")
        baseline = None
    found.arms.sort(key=lambda arm: arm.name != (baseline or names[0]))
    found.warnings += [
        f"{own['arm']}, seed {own['seed']}, {own['status']}{': ' + own['reason'] if own['reason'] else ''}; "
        "what it measured until then is shown"
        for run, (_, own) in zip(runs, entries, strict=True)
        if own.get("status") in ("failed", "stopped") and not run.cut
    ]
    found.warnings += doubts(found)
    return found


def _require(names: Sequence[str], known: set[str]) -> None:
    if unknown := [name for name in names if name not in known]:
        raise ReportError(f"there is no arm {unknown[0]!r}; arms: {', '.join(sorted(known))}")


def _choose(found: Comparison, only: Sequence[str]) -> None:
    _require(only, {arm.name for arm in found.arms} | {own.arm for own in found.pending})
    if only:
        found.arms = [arm for arm in found.arms if arm.name in only]
        found.pending = [own for own in found.pending if own.arm in only]


def _grouped(runs: Sequence[Run], labels: Sequence[Mapping[str, Any]]) -> list[ArmRuns]:
    arms: dict[str, ArmRuns] = {}
    kinds: dict[str, str] = {}  # configuration to name, of runs without a label
    for run, label in zip(runs, labels, strict=True):
        name = label.get("arm") or _derived_name(run, kinds, arms)
        seed = label.get("seed", _seed(run))
        arm = arms.setdefault(name, ArmRuns(name, {}))
        if seed in arm.runs:
            raise ReportError(
                f"{arm.runs[seed].name} and {run.name} are both of arm {name} with seed {seed}; leave one of them out, "
                "or give one another arm: NAME=FOLDER"
            )
        arm.runs[seed] = run
        if "changes" in label:
            arm.changes = (arm.changes or frozenset()) | frozenset(label["changes"])
        if label.get("seconds") and label.get("status") == "finished":
            arm.seconds[seed] = label["seconds"]
    for arm in arms.values():
        arm.runs = dict(sorted(arm.runs.items()))
    return list(arms.values())


def _derived_name(run: Run, kinds: dict[str, str], arms: Mapping[str, ArmRuns]) -> str:
    config = json.dumps(settings_of(run), sort_keys=True) if settings_of(run) else run.name
    if config not in kinds:
        method = str((run.manifest or {}).get("method") or run.name)
        kinds[config] = run.name if method in arms or method in kinds.values() else method
    return kinds[config]


def _seed(run: Run) -> int:
    """The run's seed as its manifest tells; 0 where it does not."""
    seeds = (run.manifest or {}).get("seeds") or {}
    return int(seeds.get("data", next(iter(seeds.values()), 0)))


def _of_sweep(
    folder: Path, saved: state.SweepState, pending: list[state.RunState]
) -> list[tuple[Path, dict[str, Any]]]:
    entries = []
    for place, own in saved.runs.items():
        run = folder / place
        if not any((run / file).is_file() and (run / file).stat().st_size for file in (METRICS, VALIDATION)):
            pending.append(own)
            continue
        entries.append((run, _arm_file(run) | asdict(own)))
    return entries


def _arm_file(run: Path) -> dict[str, Any]:
    path = run / state.ARM_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def split_target(target: str) -> tuple[Path, str | None]:
    """``NAME=FOLDER`` unless there is a folder of that very name."""
    name, sign, folder = target.partition("=")
    if not sign or Path(target).exists():
        return Path(target), None
    return Path(folder), name
