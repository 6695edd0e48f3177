"""Privileged contexts by name. A new one is a class in a file of its own, a name here and a line where it is built."""

from sdar_verl.teacher.contexts.base import Attempt, AttemptTurn, Context, Situation, Success, Transcript, part_of
from sdar_verl.teacher.contexts.combined import CombinedContext
from sdar_verl.teacher.contexts.demonstration import DemonstrationContext
from sdar_verl.teacher.contexts.feedback import FeedbackContext
from sdar_verl.teacher.contexts.reference import ReferenceContext
from sdar_verl.teacher.contexts.skills import SkillsContext

CONTEXTS: dict[str, type[Context]] = {  # in the order in which a prompt shows them
    cls.name: cls for cls in (SkillsContext, ReferenceContext, FeedbackContext, DemonstrationContext)
}

__all__ = [
    "CONTEXTS",
    "Attempt",
    "AttemptTurn",
    "CombinedContext",
    "Context",
    "DemonstrationContext",
    "FeedbackContext",
    "ReferenceContext",
    "Situation",
    "SkillsContext",
    "Success",
    "Transcript",
    "part_of",
]
