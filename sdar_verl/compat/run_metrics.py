"""The run's own ``metrics.jsonl`` beside verl's loggers.

verl's file logger truncates its file at start, so a resumed run would lose the metrics before the interruption.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from sdar_verl.evaluation.jsonl import JsonlWriter


class RecordedTracking:
    """Passes everything on to verl's `Tracking` and appends each step's finite numbers to a file."""

    def __init__(self, tracking: Any, path: Path):
        self._tracking, self._writer = tracking, JsonlWriter(path)

    def log(self, data: dict[str, Any], step: int, **kwargs: Any) -> None:
        numbers = {name: number_of(value) for name, value in data.items()}
        kept = {name: value for name, value in numbers.items() if value is not None}
        self._writer.write({"step": int(step), "data": kept})
        self._tracking.log(data=data, step=step, **kwargs)

    def finish(self, *args: Any, **kwargs: Any) -> None:
        self._writer.close()
        self._tracking.finish(*args, **kwargs)


def number_of(value: Any) -> float | int | None:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
