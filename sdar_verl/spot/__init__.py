"""The end of a spot instance: how it is noticed, and how the trainer is told."""

from sdar_verl.errors import SdarError

EXIT_CODE = 75  # sysexits' EX_TEMPFAIL: start the same command again, here or elsewhere


class SpotStop(SdarError):
    """The run was told that its machine goes away; what it had is saved."""
