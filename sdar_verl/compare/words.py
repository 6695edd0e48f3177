"""What a comparison shows, in plain words, and what it does not."""

from __future__ import annotations

from collections.abc import Sequence

from sdar_verl.compare.arms import Comparison
from sdar_verl.compare.numbers import Against
from sdar_verl.report.compare import signed

METHOD = (
    "Differences are paired: the same seed and the same task in both arms. Their interval (95 %) is a crossed "
    "bootstrap: seeds and tasks are drawn again with replacement, independently of each other, 10,000 times, and "
    "widened for few seeds; it speaks of other seeds and other tasks. The paired t-test treats each seed's mean as one "
    "number and the panel as given; it speaks of other seeds alone. With several arms its p-values are also adjusted "
    "(Holm)."
)
ONE_SEED = (
    "There is one seed per arm, so the intervals cover the choice of tasks only, not the luck of a training: another "
    "seed can move a curve by more than they show. A claim about the methods needs several seeds."
)
UNTIL = "Steps after {step} are left out."
FEW_SEEDS = "With {seeds} seeds an interval is wide, and little can be told apart."
BEST = (
    "Last is what the runs leave behind. Best is picked after looking at all evaluations, so it flatters, and the more "
    "evaluations there are the more. Below each number: its interval and the seeds' range. Of several seeds it is a "
    "t-interval over them, of one seed a Wilson interval over tasks."
)
EQUAL_TIME = (
    "The same minutes of training steps for all: each run counts with its last evaluations within the time that the "
    "quickest run of the two arms took, all runs with as many of them. Evaluations, checkpoints and starts are not "
    "counted. Times are those of the machine as it was; other work on it counts against whoever ran then."
)


def verdict(own: Against) -> str:
    """One sentence on an arm against the first."""
    gap = own.mean_last
    when = "at equal steps" if own.minutes is None else "at equal training time"
    numbers = f"{signed(gap.mean)} points, 95 % interval {signed(gap.low)} to {signed(gap.high)}"
    if not gap.clear:
        return f"{own.arm} and {own.baseline} cannot be told apart {when} ({numbers}; the interval contains zero)."
    side = "ahead of" if gap.low > 0 else "behind"
    return f"{own.arm} is {side} {own.baseline} {when} ({numbers})."


def caveat(found: Comparison, compared: Sequence[Against]) -> str:
    """What the number of seeds and arms allows to say."""
    seeds = min((own.mean_last.seeds for own in compared), default=min(len(arm.runs) for arm in found.arms))
    parts = [ONE_SEED] if seeds == 1 else [FEW_SEEDS.format(seeds=seeds)] if seeds < 5 else []
    if len(compared) > 1:
        parts.append(
            f"{len(compared)} arms are compared with one, so a single interval that excludes zero is less rare than it "
            "looks; see the adjusted p-values."
        )
    return " ".join(parts)


def left_out(found: Comparison, compared: Sequence[Against], timed: Sequence[Against]) -> list[str]:
    """Arms and seeds that are in no difference, at equal steps (`compared`) or at equal training time (`timed`)."""
    first, *others = found.arms
    by_arm = {own.arm: own for own in compared}
    lines = []
    for arm in others:
        common = sorted(first.runs.keys() & arm.runs.keys())
        if arm.name not in by_arm:
            why = "no evaluation after the start that both have" if common else "no seed in common"
            lines.append(f"{arm.name} is not compared with {first.name}: {why}")
        elif missing := sorted((first.runs.keys() | arm.runs.keys()) - set(by_arm[arm.name].seeds)):
            named = ", ".join(map(str, missing))
            lines.append(
                f"{arm.name} against {first.name} leaves out seed {named}: one of the two runs is missing or has not "
                "got as far as the others"
            )
    with_time = {own.arm for own in timed}
    if untimed := [name for name in by_arm if name not in with_time]:
        lines.append(
            f"not compared with {first.name} at equal training time: {', '.join(untimed)}; one of the runs has no "
            "evaluation within the time of the quickest, or a step of it was not timed"
        )
    return lines
