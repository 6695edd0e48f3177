"""Errors of checkpoint storage."""

from sdar_verl.errors import SdarError, Unreachable


class StorageError(SdarError):
    """Checkpoints cannot be written, read or found."""


class StorageUnreachable(StorageError, Unreachable):
    """S3 does not answer, is throttled or fails, or the credentials have expired; trying again later may help."""


class DamageError(StorageError):
    """A stored checkpoint is incomplete or not what its manifest says; trying again will not help."""
