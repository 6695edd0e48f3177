"""Errors of the privileged prompt; every message says what to do."""

from sdar_verl.errors import SdarError, Unreachable


class TeacherContextError(SdarError):
    """A privileged prompt cannot be built from this tokenizer, conversation or skill."""


class TeacherPromptTooLong(TeacherContextError):
    """A prompt does not fit `max_prompt_length`, whatever may be left out."""


class TeacherUnavailable(Unreachable):
    """No teacher server gave the scores in time; what happens then is the run's own policy."""


class TeacherNotAwaited(SdarError):
    """No teacher server was there, and the run was told to end before one came back."""


class TeacherRejected(SdarError):
    """A teacher server answers, but not as the teacher that it should be; its scores are never used."""
