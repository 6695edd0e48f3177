"""Units, and the error of this package."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from sdar_verl.errors import SdarError

GIB = 1 << 30
MIB = 1 << 20
GB = 10**9
HOUR = 3600.0


class PlanError(SdarError):
    """A plan cannot be made; the message says what to give."""


def shipped(name: str) -> dict[str, Any]:
    """A data file of this package (``data/<name>.json``)."""
    return json.loads(resources.files("sdar_verl.plan").joinpath("data", f"{name}.json").read_text(encoding="utf-8"))
