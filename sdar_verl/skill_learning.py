"""Feeds a run's skill statistics: counted by the trainer after each step, saved with each checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sdar_verl.settings_parts import SkillSettings
from sdar_verl.skills.errors import SkillError
from sdar_verl.skills.statistics import FILE, Outcome, SkillStatistics


class SkillLearning:
    """Statistics of one run. The run folder holds those of the last step, from which all agent loops read.

    Args:
        run_dir: of the run, the same for all its processes.
        settings: ``sdar.skills``.
    """

    def __init__(self, run_dir: Path | str, settings: SkillSettings):
        self.run_dir, self.settings = Path(run_dir), settings
        self.statistics = SkillStatistics()

    def start(self, step: int, checkpoint: Path | str | None) -> None:
        """Begin at `step`: from nothing at 0, else with what its `checkpoint` folder holds.

        Raises:
            SkillError: the checkpoint has none, or those of another step.
        """
        if step == 0 or checkpoint is None:
            self.statistics = SkillStatistics()
        else:
            try:
                self.statistics = SkillStatistics.load(checkpoint)
            except SkillError as error:
                raise SkillError(
                    f"{error}. The run cannot go on with sdar.skills.retriever=ucb; was it begun with another one?"
                ) from error
            if self.statistics.step != step:
                raise SkillError(f"{Path(checkpoint) / FILE} is of step {self.statistics.step}, not of step {step}")
        self.statistics.save(self.run_dir)

    def save(self, checkpoint: Path | str) -> None:
        """Write the statistics into a checkpoint's folder."""
        self.statistics.save(checkpoint)

    def count(self, step: int, ends: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """Count the finished episodes of `step` and publish the result; returns metrics.

        Every episode that trains is counted, also one that did not come to its end or whose prompt had no room for the
        skill: a skill that is never counted would be chosen for ever.

        Args:
            ends: for each episode ``task_type``, ``retrieved`` (ids), ``won`` and ``reward``.
        """
        score = self.settings.ucb.score
        outcomes = [Outcome(end["task_type"], tuple(end["retrieved"]), float(end[score])) for end in ends]
        self.statistics = self.statistics.after(step, outcomes)
        self.statistics.save(self.run_dir)
        different = {skill for outcome in outcomes for skill in outcome.skills}
        return {"skills/episodes_counted": len(outcomes), "skills/retrieved": len(different)}
