"""`skills`: what the run's retriever gives for the task."""

from __future__ import annotations

from sdar_verl.skills.retrievers.base import Retriever, SkillQuery
from sdar_verl.skills.skill import Skill
from sdar_verl.teacher.contexts.base import Context, Situation


class SkillsContext(Context):
    name = "skills"

    def __init__(self, retriever: Retriever):
        self.retriever = retriever

    def units(self, situation: Situation) -> list[Skill]:
        task = situation.task
        query = SkillQuery(situation.env, task.task_type, task.id, situation.seed, situation.step, situation.text)
        return self.retriever.retrieve(query)
