"""Where the wall time of a run went, from the trainer's own timers (``timing_s/<phase>``, seconds per step)."""

from __future__ import annotations

from statistics import median

from sdar_verl.report.run import Run

_PREFIX = "timing_s/"
_OUTSIDE = ("testing", "dump_rollout_generations")  # measured beside `step`, not inside it
_LABELS = {
    "gen": "rollout",
    "reward": "reward",
    "old_log_prob": "old log-probs",
    "ref": "reference log-probs",
    "teacher": "teacher log-probs",
    "teacher_log_prob": "teacher log-probs",
    "values": "values",
    "adv": "advantages",
    "update_actor": "actor update",
    "update_critic": "critic update",
    "update_weights": "weights to rollout",
    "save_checkpoint": "checkpoint",
    "testing": "validation",
    "other": "other",
}


def label(phase: str) -> str:
    """The phase in plain words."""
    return _LABELS.get(phase, phase.replace("_", " "))


def phases(run: Run) -> list[str]:
    """Timed phases, without the step's total and without the finer timers inside a phase (their names have a ``/``)."""
    names = (name.removeprefix(_PREFIX) for name in run.family(_PREFIX))
    return [name for name in names if name != "step" and "/" not in name]


def mean_phases(run: Run) -> dict[str, float]:
    """Mean seconds of each phase over the training steps; ``other`` is what the phases leave of the whole step."""
    return _split(run, count=len(run.series(_PREFIX + "step")[0]), inside_only=True)


def total_minutes(run: Run) -> dict[str, float]:
    """Minutes of each phase over the whole run, validation between the steps included; start-up is not timed."""
    return {name: seconds / 60 for name, seconds in _split(run, count=1, inside_only=False).items()}


def median_step(run: Run) -> float | None:
    """Median seconds of a training step; None where none was timed."""
    values = run.series(_PREFIX + "step")[1]
    return median(values) if values else None


def _split(run: Run, count: int, inside_only: bool) -> dict[str, float]:
    sums = {name: sum(run.series(_PREFIX + name)[1]) for name in phases(run)}
    inside = sum(value for name, value in sums.items() if name not in _OUTSIDE)
    other = max(0.0, sum(run.series(_PREFIX + "step")[1]) - inside)
    kept = {n: v / count for n, v in sums.items() if v > 0 and not (inside_only and n in _OUTSIDE)}
    return kept | {"other": other / count}
