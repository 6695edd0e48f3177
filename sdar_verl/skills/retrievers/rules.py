"""`rules`: the general skills and those of the task's own type."""

from __future__ import annotations

from sdar_verl.skills.retrievers.base import Retriever, SkillQuery
from sdar_verl.skills.skill import Skill


class RulesRetriever(Retriever):
    """Matches by the task type that the environment reports; the default of every recipe."""

    name = "rules"

    def retrieve(self, query: SkillQuery) -> list[Skill]:
        return self.general(query.env) + self.matching(query)
