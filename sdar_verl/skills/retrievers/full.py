"""`full`: every skill of the environment."""

from __future__ import annotations

from sdar_verl.skills.retrievers.base import Retriever, SkillQuery
from sdar_verl.skills.skill import Skill


class FullRetriever(Retriever):
    """All skills, so that the teacher has to find the fitting ones itself.

    The task's own skills come right after the general ones and so are the last to go when a prompt is too long.
    """

    name = "full"

    def retrieve(self, query: SkillQuery) -> list[Skill]:
        own = self.matching(query)
        others = [
            s for task_type, skills in self.by_type(query.env).items() if task_type != query.task_type for s in skills
        ]
        return self.general(query.env) + own + others
