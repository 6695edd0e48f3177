"""What the guards of the runs found, for the report."""

from __future__ import annotations

from collections.abc import Sequence

from sdar_verl.evaluation.jsonl import read_lines
from sdar_verl.guards import FILE
from sdar_verl.report.html import Html, section, table, tag
from sdar_verl.report.run import Run


def guards_section(runs: Sequence[Run]) -> Html | str:
    """A row per run and guard with its steps and its last words; empty where no guard found anything."""
    rows = []
    for run in runs:
        by_guard: dict[str, list[dict]] = {}
        for line in read_lines(run.path / FILE) if (run.path / FILE).is_file() else ():
            by_guard.setdefault(line["guard"], []).append(line)
        for name, lines in sorted(by_guard.items()):
            last = lines[-1]
            rows.append(
                [run.name, tag("code", name), last["action"], spans([line["step"] for line in lines]), last["message"]]
            )
    if not rows:
        return ""
    lead = "Guards watch every step; the bounds are in sdar.guards of the run. The words are those of the last step."
    head = ["run", "guard", "action", "steps", "found"]
    return section("guards", "What the guards found", tag("p", lead), table(head, rows, numbers_from=99))


def spans(steps: Sequence[int]) -> str:
    """Steps 3, 4, 5 and 9 as ``3 to 5, 9``."""
    found: list[list[int]] = []
    for step in sorted(set(steps)):
        if found and found[-1][1] == step - 1:
            found[-1][1] = step
        else:
            found.append([step, step])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in found)
