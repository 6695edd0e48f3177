"""Several contexts for one teacher, and SDPO's rule between them."""

from __future__ import annotations

from collections.abc import Sequence

from sdar_verl.skills.skill import Skill
from sdar_verl.teacher.contexts.base import Context, Situation


class CombinedContext:
    """All parts of a method's privileged context.

    Args:
        parts: in the order in which they are shown.
        feedback_only_without_solution: leave ``feedback`` out where another part solves the task.

    Attributes:
        needs_group: whether the text exists only once all episodes of a group have ended.
    """

    def __init__(self, parts: Sequence[Context], *, feedback_only_without_solution: bool):
        self.parts, self.feedback_only_without_solution = list(parts), feedback_only_without_solution
        self.needs_group = any(part.needs_group for part in parts)

    def units(self, situation: Situation) -> list[Skill]:
        """Every unit for a row, in order; empty if no part has anything for it."""
        found = {part.name: part.units(situation) for part in self.parts}
        solved = any(part.is_solution and found[part.name] for part in self.parts)
        if solved and self.feedback_only_without_solution:
            found.pop("feedback", None)
        return [unit for units in found.values() for unit in units]
