"""Errors of the project; each message says what to do about it."""

UNREACHABLE_EXIT_CODE = 69  # sysexits' EX_UNAVAILABLE: start the same command again, after a while


class SdarError(RuntimeError):
    """Base of all errors that a user can act upon."""


class Unreachable(SdarError):
    """Something outside the run cannot be reached now; the same start may succeed later."""


class ConfigError(SdarError):
    """The configuration cannot work; raised before anything starts."""


class RegistrationError(SdarError):
    """The plugin is not (fully) registered with verl."""
