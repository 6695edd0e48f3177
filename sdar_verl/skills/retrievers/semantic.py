"""`semantic`: the general skills and those task-specific ones whose text is closest to the task's own words."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from sdar_verl.skills.encoder import SentenceEncoder
from sdar_verl.skills.errors import MissingSkillError, SkillError
from sdar_verl.skills.retrievers.base import Retriever, SkillQuery
from sdar_verl.skills.skill import Skill

_REMEMBERED = 4096  # task descriptions; a group's episodes ask for the same one


class SemanticRetriever(Retriever):
    """Cosine similarity of sentence vectors; the task type is not looked at. Ties go to the store's order."""

    name = "semantic"

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._encoder = SentenceEncoder(self.options.semantic_model)
        self._skills = [skill for skill in self.store.all() if not skill.is_general]
        self._vectors = self._encoder.encode([skill.text for skill in self._skills]) if self._skills else None
        self._vector = lru_cache(_REMEMBERED)(lambda text: self._encoder.encode([text])[0])

    def retrieve(self, query: SkillQuery) -> list[Skill]:
        general = self.general(query.env)
        if query.text is None:
            raise SkillError("semantic chooses by the task's words, and this query has none; this is a bug, report it")
        own = [number for number, skill in enumerate(self._skills) if skill.env == query.env]
        if not own:
            if self.allow_missing:
                return general
            raise MissingSkillError(
                f"{query.env} has no task-specific skills to choose from; add some, or set allow_missing"
            )
        # row by row: a matrix product may round equal rows apart
        closeness = (self._vectors[own] * self._vector(query.text)).sum(axis=1)
        best = np.argsort(-closeness, kind="stable")[: self.options.semantic_skills]
        return general + [self._skills[own[place]] for place in best]
