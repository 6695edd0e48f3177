"""`ucb`: the general skills and the one task-specific skill that did best so far or was tried too little."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sdar_verl.skills.errors import MissingSkillError, SkillError
from sdar_verl.skills.retrievers.base import Retriever, SkillQuery
from sdar_verl.skills.skill import Skill
from sdar_verl.skills.statistics import SkillStatistics, Tally


class UcbRetriever(Retriever):
    """An upper confidence bound for each task type over all task-specific skills of the environment (paper, UCB).

    The bound of a skill is its mean score plus ``c * sqrt(ln N / n)``: it was chosen for n episodes of the task type,
    of N in all. A skill that was never chosen comes first. Ties go to the task's own type, then to the store's order.
    All episodes of one type in one training step get the same skill, chosen by the steps before.
    """

    name = "ucb"

    def retrieve(self, query: SkillQuery) -> list[Skill]:
        general = self.general(query.env)
        types = self.by_type(query.env)
        if not types:
            if self.allow_missing:
                return general
            raise MissingSkillError(
                f"{query.env} has no task-specific skills to choose from; add some, or set allow_missing"
            )
        own = types.get(query.task_type, [])
        arms = own + [skill for skills in types.values() for skill in skills if skill not in own]
        statistics = self._statistics(query)
        scores = bounds([statistics.tally(query.task_type, skill.id) for skill in arms], self.options.ucb_c)
        return [*general, arms[scores.index(max(scores))]]

    def _statistics(self, query: SkillQuery) -> SkillStatistics:
        """What was known before the query's training step."""
        if query.step is None:
            raise SkillError("ucb chooses by training step, and this query has none; this is a bug, please report it")
        if query.step <= 1:
            return SkillStatistics()
        if self._known is None or self._known.step != query.step - 1:
            if self.options.run_dir is None:
                raise SkillError("ucb needs the run's folder, where its statistics are")
            self._known = SkillStatistics.load(self.options.run_dir)
        if self._known.step != query.step - 1:
            raise SkillError(
                f"the skill statistics in {self.options.run_dir} are of step {self._known.step}, step {query.step} "
                f"needs those of step {query.step - 1}; all nodes must see one run folder"
            )
        return self._known

    _known: SkillStatistics | None = None


def bounds(tallies: Sequence[Tally], c: float) -> list[float]:
    """The upper confidence bound of each arm; infinite where nothing was tried."""
    tried = sum(tally.count for tally in tallies)
    return [tally.mean + c * math.sqrt(math.log(tried) / tally.count) if tally.count else math.inf for tally in tallies]
