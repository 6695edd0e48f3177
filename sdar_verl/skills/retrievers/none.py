"""`none`: no skills, so the teacher sees what the student sees."""

from __future__ import annotations

from sdar_verl.skills.retrievers.base import Retriever, SkillQuery
from sdar_verl.skills.skill import Skill


class NoneRetriever(Retriever):
    """Always empty: the gap is zero by construction and every gate one half."""

    name = "none"

    def retrieve(self, query: SkillQuery) -> list[Skill]:
        return []
