"""`reference`: the task's own solution (OPSD's setting)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sdar_envs.base import TaskRef

from sdar_verl.skills.errors import MissingSkillError
from sdar_verl.skills.skill import Skill
from sdar_verl.teacher.contexts.base import Context, Situation, unit

HEADING = "These actions solve this very task:"


class ReferenceContext(Context):
    """Ground truth as privileged context.

    Args:
        solve: the actions that solve a task; raises `EnvError` where none are known.
    """

    name = "reference"
    is_solution = True

    def __init__(self, solve: Callable[[TaskRef], Sequence[str]]):
        self.solve = solve

    def units(self, situation: Situation) -> list[Skill]:
        task = situation.task
        actions = self.solve(task)
        if not actions:
            raise MissingSkillError(f"task {task.id!r}: no reference solution was given")
        return [unit(self.name, "\n".join([HEADING, *actions]), situation)]
