"""Errors of the project; each message says what to do about it."""


class SdarError(RuntimeError):
    """Base of all errors that a user can act upon."""


class ConfigError(SdarError):
    """The configuration cannot work; raised before anything starts."""


class RegistrationError(SdarError):
    """The plugin is not (fully) registered with verl."""
