"""What a comparison shows, as numbers: paired differences at equal steps and at equal time, milestones, signals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from sdar_verl.compare.arms import ArmRuns, Comparison
from sdar_verl.evaluation.intervals import Rate
from sdar_verl.evaluation.paired import PairedDifference, holm, mean_interval, paired_difference
from sdar_verl.evaluation.summary import milestones
from sdar_verl.report.run import Run

TAIL = 5  # steps whose mean stands for the end of a run, for everything that is measured in each step


@dataclass(frozen=True)
class Signal:
    """A metric of the training steps that says how a run is doing.

    Attributes:
        name: in words, with its unit.
        metric: as logged.
        shape: how to print it.
        complement: show 1 minus the metric.
    """

    name: str
    metric: str
    shape: str
    complement: bool = False

    def series(self, run: Run) -> tuple[list[int], list[float]]:
        """Steps and values."""
        steps, values = run.series(self.metric)
        return steps, [1 - value for value in values] if self.complement else values


SIGNALS = (
    Signal("entropy, nats a token", "actor/entropy", "{:.4f}"),
    Signal("KL to the reference, nats a token", "actor/kl_loss", "{:.5f}"),
    Signal("KL of an update, nats a token, mean of micro-batches", "actor/ppo_kl", "{:.4f}"),
    Signal("gap, nats", "sdar/gap_mean", "{:+.4f}"),
    Signal("gate", "sdar/gate_mean", "{:.3f}"),
    Signal("gate above one half", "sdar/gate_active_ratio", "{:.1%}"),
    Signal("invalid actions", "episode/valid_action_share", "{:.1%}", complement=True),
    Signal("response length, tokens", "response_length/mean", "{:.1f}"),
    Signal("turns of an episode", "episode/turns", "{:.1f}"),
    Signal("episodes without advantage", "episode/zero_advantage_share", "{:.1%}"),
    Signal("gradient norm", "actor/grad_norm", "{:.3f}"),
)


@dataclass(frozen=True)
class Against:
    """An arm minus the first arm, at evaluations chosen in one way.

    Attributes:
        seeds: those that both arms have and that got far enough.
        last, mean_last: difference of success at the last of the chosen evaluations, and over the last k of them.
        averaged: over how many evaluations of each run `mean_last` is, at most k; the same in both arms and all seeds.
        steps: mean step of the last evaluation, of the first arm and of this one.
        minutes: training time that both had, None where steps were made equal.
        adjusted: p-value of the paired t-test over seeds of `mean_last`, adjusted for the number of arms (Holm).
    """

    arm: str
    baseline: str
    seeds: tuple[int, ...]
    last: PairedDifference
    mean_last: PairedDifference
    averaged: int
    steps: tuple[float, float]
    minutes: float | None = None
    adjusted: float | None = None


Chosen = Mapping[int, tuple[list[int], list[int]]]  # seed to the evaluations of both arms


def equal_steps(found: Comparison, k: int) -> list[Against]:
    """Every other arm against the first, at the same steps in all runs."""
    return _adjusted([own for arm in found.arms[1:] if (own := _against(found.arms[0], arm, k, _same_steps))])


def equal_time(found: Comparison, k: int) -> list[Against]:
    """Every other arm against the first, after the same training time (evaluations and start-up not counted).

    The time is that of the quickest run to its last evaluation, so no run is asked for more than it has.
    """
    return _adjusted([own for arm in found.arms[1:] if (own := _against(found.arms[0], arm, k, _same_time))])


def training_seconds(run: Run) -> dict[int, float]:
    """Evaluated step to the seconds of all training steps up to it; empty where a step was not timed."""
    timed = dict(zip(*run.series("timing_s/step"), strict=True))
    reached = max(run.validation, default=0)
    if any(step not in timed for step in range(1, reached + 1)):
        return {}
    return {step: sum(timed[own] for own in range(1, step + 1)) for step in sorted(run.validation)}


def milestone_values(arm: ArmRuns, k: int) -> dict[str, list[float]]:
    """Success before training, at the last, the best and over the last k evaluations, one value a seed."""
    values: dict[str, list[float]] = {"before training": [], "last": [], "best": [], "mean of last": []}
    for run in arm.runs.values():
        if 0 in run.validation:
            values["before training"].append(run.validation[0].overall.rate)
        if any(run.validation):
            own = milestones(run.rates, k)
            for name, rate in (("last", own.last), ("best", own.best), ("mean of last", own.mean_last)):
                values[name].append(rate.rate)
    return values


def lone_rate(arm: ArmRuns, name: str, k: int) -> Rate | None:
    """The Wilson interval over tasks of one of `milestone_values`, for an arm of one seed; None for others."""
    if len(arm.runs) != 1:
        return None
    (run,) = arm.runs.values()
    if name == "before training":
        return run.validation[0].overall if 0 in run.validation else None
    if not any(run.validation):
        return None
    own = milestones(run.rates, k)
    return {"last": own.last, "best": own.best, "mean of last": own.mean_last}[name]


def type_values(arm: ArmRuns, k: int) -> dict[str, list[float]]:
    """Task type to its success over the last k evaluations, one value a seed."""
    values: dict[str, list[float]] = {}
    for run in arm.runs.values():
        steps = sorted(step for step in run.validation if step > 0)[-k:]
        for name in run.validation[steps[-1]].by_type if steps else ():
            values.setdefault(name, []).append(fmean(run.validation[step].by_type[name].rate for step in steps))
    return values


def tails(arm: ArmRuns, signal: Signal) -> list[float]:
    """Mean of a signal's last steps, one value a seed."""
    series = [signal.series(run)[1] for run in arm.runs.values()]
    return [fmean(values[-TAIL:]) for values in series if values]


def mean_parts(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each named part over several runs; a run without it has 0 of it."""
    names = dict.fromkeys(name for own in parts for name in own)
    return {name: fmean(own.get(name, 0.0) for own in parts) for name in names}


def bands(
    series: Sequence[tuple[Sequence[int], Sequence[float]]],
) -> tuple[list[int], list[tuple[float, float, float]]]:
    """Steps that all series have, and there the mean with its t-interval over them."""
    by_step = [dict(zip(steps, values, strict=True)) for steps, values in series]
    common = sorted(set.intersection(*(set(own) for own in by_step))) if by_step else []
    return common, [mean_interval([own[step] for own in by_step]) for step in common]


def _same_steps(runs: Mapping[int, tuple[Run, Run]], k: int) -> tuple[Chosen, None]:
    """The last k steps that all runs evaluated; runs that have not got as far as the furthest pair are left out."""
    reach = {seed: max(_later(a) & _later(b), default=0) for seed, (a, b) in runs.items()}
    target = max(reach.values(), default=0)
    kept = {seed: pair for seed, pair in runs.items() if target and reach[seed] == target}
    if not kept:
        return {}, None
    common = sorted(set.intersection(*(_later(run) for pair in kept.values() for run in pair)))[-k:]
    return {seed: (common, common) for seed in kept}, None


def _same_time(runs: Mapping[int, tuple[Run, Run]], k: int) -> tuple[Chosen, float | None]:
    """Each run's last k evaluations within the time that the quickest took; pairs as in `_same_steps`.

    Where a run has fewer within it, all are cut to as many: else one arm's mean would reach further back.
    """
    chosen, _ = _same_steps(runs, 1)
    clocks = {seed: tuple(training_seconds(run) for run in runs[seed]) for seed in chosen}
    if not clocks or not all(own for pair in clocks.values() for own in pair):
        return {}, None
    budget = min(max(own.values()) for pair in clocks.values() for own in pair)
    within = {
        seed: tuple(sorted(step for step, spent in own.items() if 0 < step and spent <= budget) for own in pair)
        for seed, pair in clocks.items()
    }
    common = min(k, *(len(steps) for pair in within.values() for steps in pair))
    if not common:
        return {}, None
    return {seed: (a[-common:], b[-common:]) for seed, (a, b) in within.items()}, budget / 60


def _against(
    first: ArmRuns,
    arm: ArmRuns,
    k: int,
    choose: Callable[[Mapping[int, tuple[Run, Run]], int], tuple[Chosen, float | None]],
) -> Against | None:
    runs = {seed: (first.runs[seed], arm.runs[seed]) for seed in sorted(first.runs.keys() & arm.runs.keys())}
    chosen, minutes = choose(runs, k)
    if not chosen:
        return None
    seeds = tuple(chosen)

    def outcomes(side: int, count: int) -> list[list[float]]:
        return [_outcomes(runs[seed][side], chosen[seed][side][-count:]) for seed in seeds]

    return Against(
        arm.name,
        first.name,
        seeds,
        last=paired_difference(outcomes(0, 1), outcomes(1, 1)),
        mean_last=paired_difference(outcomes(0, k), outcomes(1, k)),
        averaged=len(chosen[seeds[0]][0]),
        steps=tuple(fmean(chosen[seed][side][-1] for seed in seeds) for side in (0, 1)),  # type: ignore[arg-type]
        minutes=minutes,
    )


def _adjusted(found: list[Against]) -> list[Against]:
    tested = [i for i, own in enumerate(found) if own.mean_last.p is not None]
    adjusted = dict(zip(tested, holm([found[i].mean_last.p or 0.0 for i in tested]), strict=True))
    return [Against(**{**vars(own), "adjusted": adjusted.get(i)}) for i, own in enumerate(found)]


def _outcomes(run: Run, steps: Sequence[int]) -> list[float]:
    """Mean outcome of each task over the evaluations, tasks in the order of their names."""
    return [
        fmean(run.validation[step].by_task[task] for step in steps)
        for task in sorted(run.validation[steps[-1]].by_task)
    ]


def _later(run: Run) -> set[int]:
    return {step for step in run.validation if step > 0}
