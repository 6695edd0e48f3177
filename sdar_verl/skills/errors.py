"""Errors of the skill library; every message says what to do."""

from sdar_verl.errors import SdarError, Unreachable


class SkillError(SdarError):
    """A skill, a skill folder or a skill name that cannot be used."""


class SkillsUnreachable(SkillError, Unreachable):
    """The store, or the hub of the model that chooses skills, does not answer or is throttled; try again later."""


class MissingSkillError(SkillError):
    """A task for which the library holds no matching skill."""


class SkillConflictError(SkillError):
    """A shared store was changed by someone else, or a version would have to change."""
