"""Does every task get its skills? Checks before and during a run."""

from __future__ import annotations

from collections.abc import Iterable

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
