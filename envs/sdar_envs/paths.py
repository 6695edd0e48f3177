"""Folders that a user names in a configuration."""

from __future__ import annotations

import os
from pathlib import Path

from sdar_envs.base import EnvError


def expanded(path: str | os.PathLike[str], setting: str) -> Path:
    """`path` with ``~`` and environment variables filled in; `setting` names it in errors.

    Raises:
        EnvError: it is empty, or a variable in it is not set.
    """
    text = os.path.expandvars(os.path.expanduser(os.fspath(path)))
    if "$" in text:
        raise EnvError(f"{setting} {os.fspath(path)!r} uses an environment variable that is not set")
    if not text:
        raise EnvError(f"{setting} is empty")
    return Path(text)
