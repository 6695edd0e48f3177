"""One validation of a run: the records of one step, checked against the panel that had to be played."""

from __future__ import annotations

from pathlib import Path

from sdar_verl.evaluation.jsonl import read_records
from sdar_verl.evaluation.panel import Panel
from sdar_verl.evaluation.records import EpisodeRecord
from sdar_verl.evaluation.summary import Summary, summarize


def validation_summary(path: Path | str, step: int, panel: Panel) -> Summary:
    """Success of the panel as played with the weights of `step`.

    A task whose episodes all failed before their first turn still has its records, so nothing drops out of the mean.

    Raises:
        ValueError: the records are not exactly the panel's tasks; the message names the difference.
    """
    episodes = [e for e in read_records(path, EpisodeRecord) if e.step == step and e.split == "val"]
    played, wanted = {e.task_id for e in episodes}, {t.id for t in panel.tasks}
    if played != wanted:
        missing, foreign = sorted(wanted - played)[:3], sorted(played - wanted)[:3]
        raise ValueError(
            f"step {step} did not play the panel {panel.short_hash}: {len(wanted - played)} tasks missing "
            f"({', '.join(missing) or 'none'}), {len(played - wanted)} foreign ({', '.join(foreign) or 'none'})"
        )
    return summarize(episodes)


def describe(summary: Summary, panel: Panel) -> str:
    """One line for a log."""
    rate = summary.overall
    return (
        f"validation on panel {panel.short_hash}: success {rate.rate:.3f} [{rate.low:.3f}, {rate.high:.3f}] "
        f"n={rate.n}" + (f", {summary.failed} episodes failed" if summary.failed else "")
    )
