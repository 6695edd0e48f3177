"""What every retriever is: a query goes in, an ordered list of skills comes out, the same one each time."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sdar_verl.skills.errors import MissingSkillError, SkillError
from sdar_verl.skills.skill import Skill
from sdar_verl.skills.store import SkillStore

T = TypeVar("T")


@dataclass(frozen=True)
class SkillQuery:
    """One task that asks for skills.

    Attributes:
        task_type: what the environment says, never guessed from a prompt.
        step: the training step of the episode (1, 2, ...); only `ucb` looks at it.
        text: the task in the environment's words; only `semantic` looks at it.
    """

    env: str
    task_type: str
    task_id: str
    seed: int = 0
    step: int | None = None
    text: str | None = None


@dataclass(frozen=True)
class RetrieverOptions:
    """What single retrievers need beside a store.

    Attributes:
        run_dir: the run's folder (`ucb`: its statistics are there).
        ucb_c: weight of what was tried too little, in the unit of the scores.
        semantic_model: the sentence encoder's folder; None for the packaged one.
        semantic_skills: how many task-specific skills `semantic` gives.
    """

    run_dir: Path | None = None
    ucb_c: float = 1.0
    semantic_model: str | None = None
    semantic_skills: int = 1


class Retriever(ABC):
    """Chooses skills for a task.

    Args:
        store: where the skills are.
        allow_missing: False raises `MissingSkillError` for a task without a matching skill; True gives it the
            general skills alone.
        seed: of the retriever itself; only the drawing ones (`random`, `wrong_task`) look at it.
        options: for those that need more.
    """

    name: str

    def __init__(
        self,
        store: SkillStore,
        *,
        allow_missing: bool = False,
        seed: int = 0,
        options: RetrieverOptions | None = None,
    ):
        self.store = store
        self.allow_missing = allow_missing
        self.seed = seed
        self.options = options or RetrieverOptions()

    @abstractmethod
    def retrieve(self, query: SkillQuery) -> list[Skill]:
        """The skills for `query`, general ones first, each a unit of its own; equal queries give equal lists."""

    def general(self, env: str) -> list[Skill]:
        """The general skills of `env`, in the store's order; raises if the store has nothing for `env` at all."""
        skills = [skill for skill in self.store.all() if skill.env == env]
        if not skills:
            known = ", ".join(sorted({skill.env for skill in self.store.all()}))
            raise SkillError(f"the skill store has nothing for environment {env!r}, only for: {known}")
        return [skill for skill in skills if skill.is_general]

    def by_type(self, env: str) -> dict[str, list[Skill]]:
        """The task-specific skills of `env` by task type, in the store's order."""
        types: dict[str, list[Skill]] = {}
        for skill in self.store.all():
            if skill.env == env and skill.task_type is not None:
                types.setdefault(skill.task_type, []).append(skill)
        return types

    def matching(self, query: SkillQuery) -> list[Skill]:
        """The skills written for the query's task type; empty only with `allow_missing`."""
        types = self.by_type(query.env)
        if query.task_type not in types and not self.allow_missing:
            raise MissingSkillError(
                f"task {query.task_id!r}: no skill for task type {query.task_type!r} of {query.env}; "
                f"there are skills for: {', '.join(types) or 'none'}. Add one, or set allow_missing"
            )
        return types.get(query.task_type, [])

    def draw(self, query: SkillQuery, options: Sequence[T]) -> T:
        """One of `options`, drawn by a hash of retriever, seeds and task; no random state is read or moved."""
        key = "\0".join([self.name, str(self.seed), str(query.seed), query.env, query.task_id])
        return options[
            int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest(), "big") % len(options)
        ]
