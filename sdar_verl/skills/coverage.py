"""Does every task get its skills? A check before the run, and counts during it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sdar_verl.skills.errors import MissingSkillError
from sdar_verl.skills.skill import Skill
from sdar_verl.skills.store import SkillStore


def missing_task_types(store: SkillStore, env: str, task_types: Iterable[str]) -> list[str]:
    """The task types of `env` for which `store` holds no task-specific skill, in the order given."""
    covered = {skill.task_type for skill in store.all() if skill.env == env}
    return [task_type for task_type in task_types if task_type not in covered]


def require_coverage(store: SkillStore, env: str, task_types: Iterable[str], *, allow_missing: bool = False) -> None:
    """Raise `MissingSkillError` before anything starts if a task type has no skill, unless `allow_missing`."""
    missing = missing_task_types(store, env, task_types)
    if missing and not allow_missing:
        raise MissingSkillError(
            f"no skill for these task types of {env}: {', '.join(missing)}; "
            "add a Markdown file for each, or set allow_missing to train them without task-specific skills"
        )


def has_task_skill(skills: Iterable[Skill], task_type: str) -> bool:
    """True if one of `skills` was written for `task_type` (general and other types' skills do not count)."""
    return any(skill.task_type == task_type for skill in skills)


@dataclass
class CoverageCounts:
    """Counts over rows; rows that only pad a batch are simply not added. Counts of several processes add up."""

    rows: int = 0
    rows_with_skill: int = 0
    rows_with_task_skill: int = 0
    skills: int = 0

    def add(self, task_type: str, skills: Sequence[Skill]) -> None:
        """Count one row, with the skills that its teacher prompt really held."""
        self.rows += 1
        self.rows_with_skill += bool(skills)
        self.rows_with_task_skill += has_task_skill(skills, task_type)
        self.skills += len(skills)

    def __add__(self, other: CoverageCounts) -> CoverageCounts:
        return CoverageCounts(
            self.rows + other.rows,
            self.rows_with_skill + other.rows_with_skill,
            self.rows_with_task_skill + other.rows_with_task_skill,
            self.skills + other.skills,
        )

    def metrics(self) -> dict[str, float]:
        """Shares of rows and skills per row; empty when no row was counted."""
        if not self.rows:
            return {}
        return {
            "sdar/task_skill_share": self.rows_with_task_skill / self.rows,
            "sdar/any_skill_share": self.rows_with_skill / self.rows,
            "sdar/skills_per_row": self.skills / self.rows,
        }
