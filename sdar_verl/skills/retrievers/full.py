"""`full`: every skill of the environment."""

from __future__ import annotations

from sdar_verl.skills.retrievers.base import Retriever, SkillQuery
from sdar_verl.skills.skill import Skill


class FullRetriever(Retriever):
    """All skills, so that the teacher has to find the fitting ones itself: general, the task's own, all others."""

    name = "full"

    def retrieve(self, query: SkillQuery) -> list[Skill]:
        own = self.matching(query)
        types = self.by_type(query.env)
        others = [skill for task_type in types if task_type != query.task_type for skill in types[task_type]]
        return self.general(query.env) + own + others
