"""Where the runs come from: panel, versions, seeds, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdar_verl.config_diff import differences
from sdar_verl.report.html import Html, join, table, tag
from sdar_verl.report.run import Run

_MISSING = "not recorded"


def panel_line(runs: Sequence[Run]) -> Html:
    """The panel that all runs share."""
    panel = next((run.panel for run in runs if run.panel is not None), None)
    if panel is None:
        return tag("p", "No panel was recorded.")
    types = ", ".join(f"{name} {count}" for name, count in panel.type_counts.items())
    return tag(
        "p", f"Panel: {len(panel)} tasks of {panel.env}/{panel.split} ({types}). Hash ", tag("code", panel.hash), "."
    )


def versions_table(runs: Sequence[Run]) -> Html:
    """Start, code, seeds, data and package versions of each run; what differs between runs is marked."""
    facts = [_facts(run.manifest or {}) for run in runs]
    names = list(dict.fromkeys(name for fact in facts for name in fact))
    rows = []
    for name in names:
        values = [fact.get(name, _MISSING) for fact in facts]
        differs = len(set(values)) > 1 and name not in ("started", "settings hash")
        rows.append([name, *(tag("span", v, class_="differs") if differs else v for v in values)])
    return table(["", *(run.name for run in runs)], rows, numbers_from=99)


def settings_table(runs: Sequence[Run]) -> Html | str:
    """The configuration keys in which the runs differ, paths and names of runs apart."""
    configs = [(run.manifest or {}).get("config") or {} for run in runs]
    if len(runs) < 2 or not all(configs):
        return ""
    rows = [[tag("code", key), *values] for key, values in differences(*configs).items()]
    if not rows:
        return tag("p", "The runs do not differ in any setting other than where they write.")
    return join(
        [
            tag("h3", "Settings in which the runs differ"),
            table(["setting", *(r.name for r in runs)], rows, numbers_from=99),
        ]
    )


def _facts(manifest: Mapping[str, Any]) -> dict[str, str]:
    git = manifest.get("git") or {}
    facts = {"started": str(manifest.get("started", _MISSING))}
    if git:
        facts["commit"] = str(git.get("commit", ""))[:12] + (" with changes" if git.get("changed") else "")
    facts["settings hash"] = str(manifest.get("config_hash", _MISSING))[:12]
    facts |= {f"seed {name}": str(seed) for name, seed in (manifest.get("seeds") or {}).items()}
    facts |= {f"data {name}": str(value)[:12] for name, value in (manifest.get("data") or {}).items()}
    if "skills" in manifest:
        skills = manifest["skills"] or []
        facts["skills"] = ", ".join(f"{s['id']} v{s['version']} ({str(s['hash'])[:8]})" for s in skills) or "none"
    facts["python"] = str(manifest.get("python", _MISSING))
    return facts | {str(name): str(version) for name, version in (manifest.get("packages") or {}).items()}
