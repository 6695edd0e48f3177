"""Errors of the skill library; every message says what to do."""

from sdar_verl.errors import SdarError


class SkillError(SdarError):
    """A skill, a skill folder or a skill name that cannot be used."""


class MissingSkillError(SkillError):
    """A task for which the library holds no matching skill."""


class SkillConflictError(SkillError):
    """A shared store was changed by someone else, or a version would have to change."""
