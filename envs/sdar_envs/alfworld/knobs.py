"""How hard generated games are, and which floor plans a split may use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdar_envs.alfworld.games import TASK_TYPES
from sdar_envs.alfworld.scenes import ROOMS, Scene, held_out, scenes
from sdar_envs.base import EnvError


@dataclass(frozen=True)
class Knobs:
    """How hard the games are.

    Attributes:
        task_types: drawn in turn, so that a split is balanced.
        rooms: kinds of room to use.
        scenes: floor plan numbers to use; None leaves the choice to the split (see `usable_scenes`).
        receptacles: fewest and most places in a room.
        objects: fewest and most portable objects in a room, those of the task included.
        copies: most objects of one type that a room holds beside those of the task.
        closed_places: False leaves out cabinets, drawers, safes, fridges and microwaves that the task does not need.

    Raises:
        EnvError: an unknown name or an empty range.
    """

    task_types: tuple[str, ...] = TASK_TYPES
    rooms: tuple[str, ...] = tuple(ROOMS)
    scenes: tuple[int, ...] | None = None
    receptacles: tuple[int, int] = (6, 12)
    objects: tuple[int, int] = (8, 16)
    copies: int = 2
    closed_places: bool = True

    def __post_init__(self) -> None:
        _check_names("task type", self.task_types, TASK_TYPES)
        _check_names("room", self.rooms, tuple(ROOMS))
        if self.scenes is not None:
            _check_names("floor plan", self.scenes, tuple(n for numbers in ROOMS.values() for n in numbers))
        for name, low, floor in (("receptacles", self.receptacles, 3), ("objects", self.objects, 2)):
            if not floor <= low[0] <= low[1]:
                raise EnvError(f"{name} is {low}; it takes (fewest, most) with {floor} <= fewest <= most")
        if self.copies < 1:
            raise EnvError(f"copies is {self.copies}; set it to 1 or more")


def usable_scenes(split: str, knobs: Knobs) -> list[Scene]:
    """The floor plans of a split: the named ones, else the held-out ones where `split` contains ``unseen``.

    Raises `EnvError` if none is left.
    """
    found = [scene for scene in scenes().values() if scene.room in knobs.rooms]
    if knobs.scenes is not None:
        found = [scene for scene in found if scene.number in knobs.scenes]
    else:
        found = [scene for scene in found if held_out(scene.number) == ("unseen" in split)]
    if not found:
        raise EnvError(f"no floor plan is left for split {split!r}: widen rooms={knobs.rooms} or scenes={knobs.scenes}")
    return found


def _check_names(what: str, given: Sequence[object], known: Sequence[object]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown or not given:
        raise EnvError(f"unknown or no {what} in {given}; known: {', '.join(map(str, known))}")
