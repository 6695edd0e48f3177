"""`random`: the general skills and those of a task type drawn blindly."""

from __future__ import annotations

from sdar_verl.skills.errors import MissingSkillError
from sdar_verl.skills.retrievers.base import Retriever, SkillQuery
from sdar_verl.skills.skill import Skill


class RandomRetriever(Retriever):
    """Draws uniformly from all task types that have skills, the right one included; one draw per task and seed."""

    name = "random"

    def retrieve(self, query: SkillQuery) -> list[Skill]:
        general = self.general(query.env)
        types = self.by_type(query.env)
        if not types:
            if self.allow_missing:
                return general
            raise MissingSkillError(
                f"{query.env} has no task-specific skills to draw from; add some, or set allow_missing"
            )
        return general + types[self.draw(query, sorted(types))]
