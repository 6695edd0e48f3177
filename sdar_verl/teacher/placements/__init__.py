"""Placements by name. A new one is a class in a file of its own and one entry in `_CLASSES`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdar_verl.teacher.errors import TeacherContextError
from sdar_verl.teacher.placements.base import Placement
from sdar_verl.teacher.placements.before_template import BeforeTemplatePlacement
from sdar_verl.teacher.placements.system import SystemPlacement
from sdar_verl.teacher.placements.user_prefix import UserPrefixPlacement

_CLASSES: dict[str, type[Placement]] = {
    cls.name: cls for cls in (SystemPlacement, UserPrefixPlacement, BeforeTemplatePlacement)
}


def names() -> list[str]:
    return sorted(_CLASSES)


def make(name: str, tokenizer: Any, kwargs: Mapping[str, Any]) -> Placement:
    """The placement called `name`; raises `TeacherContextError` naming the known ones."""
    if name not in _CLASSES:
        raise TeacherContextError(f"unknown placement {name!r}; known: {', '.join(names())}")
    return _CLASSES[name](tokenizer, kwargs)


__all__ = ["Placement", "make", "names"]
