"""The 120 floor plans that ship with the `alfworld` package: their places, poses and kinds of objects."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sdar_envs.alfworld.packages import import_alfworld

ROOMS = {
    "Kitchen": range(1, 31),
    "LivingRoom": range(201, 231),
    "Bedroom": range(301, 331),
    "Bathroom": range(401, 431),
}
CLOSED_TYPES = frozenset({"Cabinet", "Drawer", "Fridge", "Microwave", "Safe"})  # must be opened to see what is inside
_GRID = 0.25  # metres; the engine's location names count in this unit
_HELD_OUT_EVERY = 5
_OFFICIAL_UNSEEN = frozenset({10, 219, 308, 424})


@dataclass(frozen=True, order=True)
class Place:
    """A receptacle of a floor plan.

    Attributes:
        id: ALFRED's id, ``Type|x|y|z`` or ``Type|x|y|z|Part`` with positions in metres.
        type: what it is (``Cabinet``, ``SinkBasin``, ...).
        location: id of the spot from which it is reached; two places may share one.
    """

    id: str
    type: str
    location: str

    @property
    def closed(self) -> bool:
        return self.type in CLOSED_TYPES


@dataclass(frozen=True)
class Scene:
    """One floor plan: its places, and the object types that occur in it (both sorted)."""

    number: int
    room: str
    places: tuple[Place, ...]
    objects: tuple[str, ...]


def held_out(number: int) -> bool:
    """True for the floor plans kept for unseen splits: every fifth, and those of ALFWorld's own unseen splits."""
    return number % _HELD_OUT_EVERY == 0 or number in _OFFICIAL_UNSEEN


def package_folder() -> Path:
    """Where the installed `alfworld` package keeps its files."""
    return Path(str(import_alfworld("alfworld").__file__)).parent


@lru_cache(maxsize=1)
def contents() -> dict[str, frozenset[str]]:
    """Which object types each place type may hold, from ALFWorld's own table; sliced objects left out."""
    table = import_alfworld("alfworld.gen.constants").VAL_RECEPTACLE_OBJECTS
    return {place: frozenset(kind for kind in kinds if "Sliced" not in kind) for place, kinds in table.items()}


@lru_cache(maxsize=1)
def scenes() -> dict[int, Scene]:
    """All floor plans by number; places whose type can hold nothing are left out."""
    folder = package_folder() / "gen" / "layouts"
    return {number: _read(folder, number, room) for room, numbers in ROOMS.items() for number in numbers}


def _read(folder: Path, number: int, room: str) -> Scene:
    poses = json.loads((folder / f"FloorPlan{number}-openable.json").read_text(encoding="utf-8"))
    objects = json.loads((folder / f"FloorPlan{number}-objects.json").read_text(encoding="utf-8"))
    places = [Place(id, _place_type(id), _location(pose)) for id, pose in poses.items()]
    return Scene(number, room, tuple(sorted(p for p in places if p.type in contents())), tuple(sorted(set(objects))))


def _place_type(place_id: str) -> str:
    name, _, rest = place_id.partition("|")
    return f"{name}Basin" if "Basin" in rest else name  # one bathtub in the data is labelled as a sink


def _location(pose: list[float]) -> str:
    x, z, rotation, horizon = pose
    return f"loc|{round(x / _GRID)}|{round(z / _GRID)}|{round(rotation / 90) % 4}|{round(horizon)}"
