"""Command lines of training runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

_PLAIN = re.compile(r"[A-Za-z_][\w-]*")


def training(overrides: Iterable[str]) -> list[str]:
    """``sdar train OVERRIDES`` as the command line of a child process."""
    return [sys.executable, "-m", "sdar_verl.train", *overrides]


def assignments(settings: Mapping[str, object]) -> list[str]:
    """Each setting as a Hydra override; texts in quotes, so that spaces, commas and equal signs stay what they are."""
    return [f"{key}={_quoted(value)}" for key, value in settings.items()]


def seeds(seed: int) -> dict[str, object]:
    """Everything by which two runs of one seed agree: order of the tasks, of the updates, sampling, drawn skills.

    The panel's seed is not among them: which tasks are evaluated must not change with the run.
    """
    return {
        "sdar.skills.seed": seed,
        "data.seed": seed,
        "actor_rollout_ref.actor.data_loader_seed": seed,
        "++actor_rollout_ref.rollout.seed": seed,
    }


def _quoted(value: object) -> str:
    if isinstance(value, str | Path) and not _PLAIN.fullmatch(str(value)):
        return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(value)
