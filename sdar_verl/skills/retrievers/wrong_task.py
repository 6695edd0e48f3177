"""`wrong_task`: the general skills and those of another task type; a negative control."""

from __future__ import annotations

from sdar_verl.skills.errors import MissingSkillError
from sdar_verl.skills.retrievers.base import Retriever, SkillQuery
from sdar_verl.skills.skill import Skill


class WrongTaskRetriever(Retriever):
    """Draws uniformly from the task types that are not the task's own.

    Same length and tone as the right skills, wrong content: whatever `rules` gains over this comes from the content.
    """

    name = "wrong_task"

    def retrieve(self, query: SkillQuery) -> list[Skill]:
        general = self.general(query.env)
        types = self.by_type(query.env)
        others = sorted(task_type for task_type in types if task_type != query.task_type)
        if not others:
            raise MissingSkillError(
                f"task {query.task_id!r}: there is no skill of a type other than {query.task_type!r}; "
                "a wrong-task control needs skills for two task types at least"
            )
        return general + types[self.draw(query, others)]
