"""What the first observation of an ALFWorld episode says about the room."""

from __future__ import annotations

import re

_SEES = re.compile(r"Looking quickly around you, you see (?P<list>.*?)\.(?:\s|$)", re.DOTALL)
_PLACE = re.compile(r"\b([a-z]+ \d+)\b")


def room_places(first_observation: str) -> list[str]:
    """The places of the room (``["bed 1", "desk 2", ..]``) in the order in which the observation names them.

    Empty if `first_observation` has no such list.
    """
    found = _SEES.search(first_observation)
    return _PLACE.findall(found["list"]) if found else []
