"""What the first observation of an ALFWorld episode says about the room."""

from __future__ import annotations

import re

_SEES = re.compile(r"Looking quickly around you, you see (?P<list>.*?)\.(?:\s|$)", re.DOTALL)
_PLACE = re.compile(r"\b([a-z]+ \d+)\b")
_TASK = re.compile(r"Your task is to: (?P<task>.*)", re.DOTALL)


def room_places(first_observation: str) -> list[str]:
    """The places of the room (``["bed 1", "desk 2", ..]``) in the order in which the observation names them.

    Empty if `first_observation` has no such list.
    """
    found = _SEES.search(first_observation)
    return _PLACE.findall(found["list"]) if found else []


def task_of(first_observation: str) -> str:
    """The text after "Your task is to: ", without a final dot or spaces; empty if there is none."""
    found = _TASK.search(first_observation)
    return found["task"].strip().rstrip(".").strip() if found else ""
