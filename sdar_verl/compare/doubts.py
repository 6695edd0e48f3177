"""What makes a comparison doubtful: differences between runs that their arms are not about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sdar_verl.config_diff import differences, flat, is_place
from sdar_verl.report.run import Run
from sdar_verl.runs.command import seeds as seed_settings

if TYPE_CHECKING:
    from sdar_verl.compare.arms import Comparison

_SEEDS = {key.lstrip("+") for key in seed_settings(0)}
_DERIVED = {"actor_rollout_ref.actor.calculate_entropy"}  # a run turns it on where its gate needs it


def doubts(found: Comparison) -> list[str]:
    """In what the runs differ beside what their arms are about: data, versions, settings; and numbers of seeds."""
    manifests = {run.name: run.manifest for run in found.runs if run.manifest is not None}
    lines = [f"{what} differ between the runs: {text}" for what, text in _differences(manifests)]
    if changed := [name for name, own in manifests.items() if (own.get("git") or {}).get("changed")]:
        lines.append(
            f"tracked files had changes that no commit holds, so the commit does not say all: {_some(changed)}"
        )
    same: dict[str, list[str]] = {}
    for run in found.runs:
        for warning in run.warnings:
            same.setdefault(warning, []).append(run.name)
    lines += [f"{_some(names)}: {warning}" for warning, names in same.items()]
    configs = {id(run): settings_of(run) for run in found.runs}
    for arm in found.arms:
        own = [configs[id(run)] for run in arm.runs.values() if configs[id(run)]]
        if keys := list(differences(*own)):
            lines.append(f"the runs of {arm.name} differ in more than their seed: {_some(keys)}")
    first, *others = found.arms
    for arm in others:
        if first.changes is None or arm.changes is None:
            continue
        pair = [configs[id(next(iter(own.runs.values())))] for own in (first, arm)]
        if all(pair) and (keys := sorted(differences(*pair).keys() - first.changes - arm.changes - _DERIVED)):
            lines.append(f"{arm.name} and {first.name} differ in settings that neither of them is about: {_some(keys)}")
    seeds = {arm.name: sorted(arm.runs) for arm in found.arms}
    if len({tuple(own) for own in seeds.values()}) > 1:
        lines.append("the arms have different seeds: " + "; ".join(f"{n}: {_numbers(s)}" for n, s in seeds.items()))
    return lines


def _differences(manifests: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    kinds = {
        "data": lambda m: m.get("data") or {},
        "package versions": lambda m: (m.get("packages") or {}) | {"python": m.get("python")},
        "commits": lambda m: {"commit": (m.get("git") or {}).get("commit")},
        "machines, and with them all times,": lambda m: {"number of cores": m.get("cores", "not known")},
    }
    for kind, of in kinds.items():
        facts = {name: of(manifest) for name, manifest in manifests.items()}
        for key in sorted({key for own in facts.values() for key in own}):
            by_value: dict[str, list[str]] = {}
            for name, own in facts.items():
                by_value.setdefault(str(own.get(key, "none")), []).append(name)
            if len(by_value) > 1:
                short = 12 if len({value[:12] for value in by_value}) == len(by_value) else None  # hashes are long
                yield kind, f"{key} is " + ", ".join(f"{v[:short]} in {_some(names)}" for v, names in by_value.items())


def settings_of(run: Run) -> dict[str, str]:
    """The run's settings but for seeds and places, as dotted keys; empty where no manifest has them."""
    own = flat((run.manifest or {}).get("config") or {})
    return {key: value for key, value in own if key not in _SEEDS and not is_place(key)}


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _some(names: Sequence[str], limit: int = 6) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
