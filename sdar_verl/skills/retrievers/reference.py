"""`reference`: the task's own solution instead of skills."""

from __future__ import annotations

from sdar_verl.skills.errors import MissingSkillError
from sdar_verl.skills.retrievers.base import Retriever, SkillQuery
from sdar_verl.skills.skill import Skill

HEADING = "These actions solve this very task:"


class ReferenceRetriever(Retriever):
    """Ground truth as privileged context (OPSD's setting); the store is not read."""

    name = "reference"

    def retrieve(self, query: SkillQuery) -> list[Skill]:
        if not query.reference:
            raise MissingSkillError(f"task {query.task_id!r}: no reference solution was given")
        text = "\n".join([HEADING, *query.reference])
        return [Skill("reference", text, query.env, query.task_type, 1, "the task's own solution")]
