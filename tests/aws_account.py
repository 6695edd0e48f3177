"""Credentials that AWS's clients take and that open nothing; the tests' AWS is moto's server (fixture `moto_url`)."""

from __future__ import annotations

import pytest


def use_made_up_account(patch: pytest.MonkeyPatch) -> None:
    """Let the clients of this process, and of those that it starts, look for credentials nowhere else."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "testing")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        patch.delenv(name, raising=False)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
