"""Numbers side by side: milestones of each run, success per task type, and paired differences on the common panel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from sdar_verl.evaluation.intervals import Difference, Rate, paired_bootstrap
from sdar_verl.evaluation.summary import milestones
from sdar_verl.report.html import Html, join, table, tag
from sdar_verl.report.run import Run


@dataclass(frozen=True)
class Comparison:
    """Run `b` minus run `a`, task by task, at steps that both evaluated.

    Attributes:
        steps: the evaluations averaged for `mean_last`; the last of them is the step of `last`.
        last, mean_last: mean paired difference of success, in [-1, 1], with its interval over tasks.
    """

    a: str
    b: str
    steps: tuple[int, ...]
    last: Difference
    mean_last: Difference


def compare(a: Run, b: Run, k: int) -> Comparison | None:
    """Compare two runs of one panel; None unless both evaluated some step after training began."""
    common = sorted(step for step in a.validation.keys() & b.validation.keys() if step > 0)[-k:]
    if not common:
        return None
    tasks = sorted(a.validation[common[-1]].by_task)

    def outcomes(run: Run, steps: Sequence[int]) -> list[float]:
        return [mean(run.validation[step].by_task[task] for step in steps) for task in tasks]

    last = paired_bootstrap(outcomes(a, common[-1:]), outcomes(b, common[-1:]))
    return Comparison(a.name, b.name, tuple(common), last, paired_bootstrap(outcomes(a, common), outcomes(b, common)))


def gain(run: Run, k: int) -> Difference | None:
    """Mean of the last `k` evaluations minus the one before training, task by task; None unless there are both."""
    later = sorted(step for step in run.validation if step > 0)[-k:]
    if 0 not in run.validation or not later:
        return None
    tasks = sorted(run.validation[0].by_task)
    start = [run.validation[0].by_task[task] for task in tasks]
    return paired_bootstrap(start, [mean(run.validation[step].by_task[task] for step in later) for task in tasks])


def milestone_table(runs: Sequence[Run], k: int) -> Html:
    """Before training, last, best and mean of the last `k` evaluations of every run."""
    rows = []
    for run in runs:
        if not run.validation:
            rows.append([run.name, *["none"] * 4])
            continue
        found = milestones(run.rates, k)
        start = run.validation.get(0)
        rows.append(
            [
                run.name,
                rate_cell(start.overall) if start else "not evaluated",
                rate_cell(found.last, f"step {found.last_step}"),
                rate_cell(found.best, f"step {found.best_step}"),
                rate_cell(found.mean_last, f"{found.k} evaluation{'s' if found.k > 1 else ''}"),
            ]
        )
    return table(["run", "before training", "last", "best", f"mean of last {k}"], rows)


def type_table(runs: Sequence[Run]) -> Html | str:
    """Success per task type at each run's last evaluation."""
    shown = [run for run in runs if run.validation]
    if not shown:
        return ""
    last = {run.name: (max(run.validation), run.validation[max(run.validation)]) for run in shown}
    types = sorted({name for _, summary in last.values() for name in summary.by_type})
    head = ["task type", "tasks", *(f"{run.name}, step {last[run.name][0]}" for run in shown)]
    rows = []
    for name in types:
        rates = [last[run.name][1].by_type.get(name) for run in shown]
        count = next(rate.n for rate in rates if rate)
        rows.append([tag("code", name), count, *(rate_cell(rate) if rate else "none" for rate in rates)])
    return table(head, rows)


def rate_cell(rate: Rate, below: str = "") -> Html:
    """A rate with its interval, and a word on where it is from."""
    interval = f"{100 * rate.low:.0f} to {100 * rate.high:.0f} %"
    return join([tag("b", percent(rate.rate)), tag("small", interval), tag("small", below) if below else ""])


def difference_table(comparisons: Sequence[Comparison]) -> Html:
    """Paired differences in percentage points."""
    rows = [
        [
            f"{found.b} minus {found.a}",
            points(found.last, f"step {found.steps[-1]}"),
            points(found.mean_last, "steps " + ", ".join(map(str, found.steps))),
            found.last.n,
        ]
        for found in comparisons
    ]
    return table(["difference", "last common evaluation", "mean of the last common ones", "tasks"], rows)


def points(difference: Difference, below: str = "") -> Html:
    """A difference of rates in percentage points with its interval."""
    interval = f"{signed(difference.low)} to {signed(difference.high)}"
    parts = [tag("b", f"{signed(difference.mean)} points"), tag("small", interval)]
    return join([*parts, tag("small", below) if below else ""])


def percent(rate: float) -> str:
    """0.416 as ``41.6 %``."""
    return f"{100 * rate:.1f} %"


def signed(difference: float) -> str:
    """0.052 as ``+5.2``; zero has no sign."""
    text = f"{100 * difference:+.1f}".replace("-", "\u2212")
    return "0.0" if text[1:] == "0.0" else text
