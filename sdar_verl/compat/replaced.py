"""One of verl's functions or classes, exchanged for the time of a call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """``owner.name`` is `value` meanwhile; what was there before is put back, after an error too.

    Raises:
        AttributeError: `owner` has no such name, so nothing would have been exchanged.
    """
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
