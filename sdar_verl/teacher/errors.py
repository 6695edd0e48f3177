"""Errors of the privileged prompt; every message says what to do."""


class TeacherContextError(ValueError):
    """A privileged prompt cannot be built from this tokenizer, conversation or skill."""


class TeacherPromptTooLong(TeacherContextError):
    """A prompt does not fit `max_prompt_length`, whatever may be left out."""
