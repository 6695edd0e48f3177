"""Errors of checkpoint storage."""

from sdar_verl.errors import SdarError


class StorageError(SdarError):
    """Checkpoints cannot be written, read or found."""


class DamageError(StorageError):
    """A stored checkpoint is incomplete or not what its manifest says; trying again will not help."""
