"""Success over a set of episodes and over the course of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sdar_verl.evaluation.intervals import Rate, wilson
from sdar_verl.evaluation.records import EpisodeRecord


@dataclass(frozen=True)
class Summary:
    """Success of one evaluation.

    Attributes:
        overall: over all tasks.
        by_type: per task type, sorted by name.
        by_task: mean outcome of each task id, in [0, 1].
        episodes: episodes behind it; more than tasks when a task is played several times.
        failed: episodes whose environment failed; they count as not won.
        score: mean of the environment's own scores, where it gives any (an episode without one counts as 0).
    """

    overall: Rate
    by_type: Mapping[str, Rate]
    by_task: Mapping[str, float]
    episodes: int
    failed: int
    score: float | None = None

    def metrics(self, prefix: str = "val") -> dict[str, float]:
        """Names and numbers for a logger: ``<prefix>/success_rate``, ``/success/<task_type>``, ``/n``, ``/failed``,
        and ``/score`` where there is one."""
        named = {f"{prefix}/success_rate": self.overall.rate, f"{prefix}/n": float(self.episodes)}
        named |= {f"{prefix}/success/{name}": rate.rate for name, rate in self.by_type.items()}
        if self.score is not None:
            named[f"{prefix}/score"] = self.score
        return named | {f"{prefix}/failed": float(self.failed)}


def summarize(episodes: Iterable[EpisodeRecord], confidence: float = 0.95) -> Summary:
    """Success over `episodes`, one value per task.

    A task played several times enters as the mean of its outcomes, and intervals count tasks, not episodes: playing
    the same task again says little about other tasks. With one episode per task this is the plain Wilson interval.
    An episode that failed is one that was not won.

    Raises:
        ValueError: there are no episodes, or one task id has two types.
    """
    episodes = list(episodes)
    if not episodes:
        raise ValueError("there are no episodes to summarize")
    outcomes: dict[str, list[bool]] = defaultdict(list)
    types: dict[str, str] = {}
    for episode in episodes:
        if types.setdefault(episode.task_id, episode.task_type) != episode.task_type:
            raise ValueError(f"task {episode.task_id!r} has types {types[episode.task_id]} and {episode.task_type}")
        outcomes[episode.task_id].append(episode.won)
    by_task = {task: sum(won) / len(won) for task, won in sorted(outcomes.items())}
    by_type: dict[str, list[float]] = defaultdict(list)
    for task, mean in by_task.items():
        by_type[types[task]].append(mean)
    return Summary(
        overall=_rate(by_task.values(), confidence),
        by_type={name: _rate(by_type[name], confidence) for name in sorted(by_type)},
        by_task=by_task,
        episodes=len(episodes),
        failed=sum(episode.failed is not None for episode in episodes),
        score=_mean_score(episodes),
    )


def _mean_score(episodes: list[EpisodeRecord]) -> float | None:
    """Mean score of the tasks' means; None where no episode has a score."""
    if all(episode.score is None for episode in episodes):
        return None
    scores: dict[str, list[float]] = defaultdict(list)
    for episode in episodes:
        scores[episode.task_id].append(episode.score or 0.0)
    return sum(sum(own) / len(own) for own in scores.values()) / len(scores)


def curve(episodes: Iterable[EpisodeRecord], confidence: float = 0.95) -> dict[int, Summary]:
    """A `Summary` per step, steps ascending.

    Where a resumed run evaluated a step again, the later record of a validation task and session stands for it.
    """
    by_step: dict[int, dict[tuple, EpisodeRecord]] = defaultdict(dict)
    for episode in episodes:
        group = episode.uid if episode.split == "train" else ""
        by_step[episode.step][episode.task_id, group, episode.session] = episode
    return {step: summarize(by_step[step].values(), confidence) for step in sorted(by_step)}


@dataclass(frozen=True)
class Milestones:
    """Three ways to put one number on a run; they are never mixed.

    Attributes:
        last_step, last: the final evaluation, what the run leaves behind.
        best_step, best: the highest evaluation (the earliest of equals). Chosen by looking, so it is optimistic and its
            interval does not hold.
        k, mean_last: the mean of the last `k` evaluations, which smooths the noise of single ones. Its interval counts
            every task once, so it is on the wide side.
    """

    last_step: int
    last: Rate
    best_step: int
    best: Rate
    k: int
    mean_last: Rate


def milestones(rates: Mapping[int, Rate], k: int = 3, confidence: float = 0.95) -> Milestones:
    """Last, best and mean-of-last-`k` of the evaluations of one panel, given by step.

    With fewer than `k` evaluations the mean takes all and says so in `Milestones.k`.

    Raises:
        ValueError: no evaluations, `k` below 1, or evaluations of different size.
    """
    if not rates:
        raise ValueError("there is no evaluation yet")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if len({rate.n for rate in rates.values()}) != 1:
        raise ValueError("the evaluations have different numbers of tasks, so they are not of one panel")
    steps = sorted(rates)
    best_step = max(steps, key=lambda step: (rates[step].rate, -step))
    tail = [rates[step] for step in steps[-k:]]
    mean = sum(rate.rate for rate in tail) / len(tail)
    mean_last = wilson(min(mean * tail[0].n, tail[0].n), tail[0].n, confidence)
    return Milestones(steps[-1], rates[steps[-1]], best_step, rates[best_step], len(tail), mean_last)


def _rate(means: Iterable[float], confidence: float) -> Rate:
    means = list(means)
    return wilson(min(sum(means), len(means)), len(means), confidence)
