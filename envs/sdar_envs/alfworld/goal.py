"""What an ALFWorld task sentence asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sdar_envs.base import EnvError

_PATTERNS = (
    ("look_at_obj_in_light", r"(?:look at|examine the) (?P<thing>\w+) (?:under|with) the (?P<place>\w+)"),
    ("pick_two_obj_and_place", r"(?:put two (?P<thing>\w+) in|find two (?P<other>\w+) and put them in) (?P<place>\w+)"),
    ("pick_clean_then_place_in_recep", r"put a clean (?P<thing>\w+) in (?P<place>\w+)"),
    ("pick_clean_then_place_in_recep", r"clean some (?P<thing>\w+) and put it in (?P<place>\w+)"),
    ("pick_heat_then_place_in_recep", r"put a hot (?P<thing>\w+) in (?P<place>\w+)"),
    ("pick_heat_then_place_in_recep", r"heat some (?P<thing>\w+) and put it in (?P<place>\w+)"),
    ("pick_cool_then_place_in_recep", r"put a cool (?P<thing>\w+) in (?P<place>\w+)"),
    ("pick_cool_then_place_in_recep", r"cool some (?P<thing>\w+) and put it in (?P<place>\w+)"),
    ("pick_and_place_simple", r"put (?:a (?P<thing>\w+) in|some (?P<other>\w+) on) (?P<place>\w+)"),
)


@dataclass(frozen=True)
class Goal:
    """A task in three words.

    Attributes:
        task_type: ALFWorld's name of it.
        thing: kind of the object to move, as the engine spells it (``alarmclock``).
        place: kind of the place that must receive it; the lamp's kind for the lamp task.
    """

    task_type: str
    thing: str
    place: str


def read_goal(task_description: str) -> Goal:
    """Parse one of ALFWorld's own task sentences; raises `EnvError` on any other text (human annotations)."""
    sentence = task_description.strip().rstrip(".").strip().lower()
    for task_type, pattern in _PATTERNS:
        found = re.fullmatch(pattern, sentence)
        if found:
            words = found.groupdict()
            return Goal(task_type, words["thing"] or words["other"], words["place"])
    raise EnvError(f"cannot read the task {task_description!r}; only ALFWorld's templated sentences are understood")
