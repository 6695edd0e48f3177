"""Random rooms with a task in them: which places, which objects, what lies where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from sdar_envs.alfworld.knobs import Knobs
from sdar_envs.alfworld.packages import import_alfworld
from sdar_envs.alfworld.scenes import Place, Scene, contents
from sdar_envs.base import EnvError

LAMP = "DeskLamp"
_LAMP_PLACES = frozenset({"Desk", "Dresser", "Shelf", "SideTable"})
APPLIANCES = {
    "pick_clean_then_place_in_recep": ("SinkBasin", "Cleanable"),
    "pick_heat_then_place_in_recep": ("Microwave", "Heatable"),
    "pick_cool_then_place_in_recep": ("Fridge", "Coolable"),
}
_ATTEMPTS = 2000


@dataclass(frozen=True)
class Thing:
    """A portable object or a lamp: ALFRED's id, its type, and the place that holds it."""

    id: str
    type: str
    place: Place


@dataclass(frozen=True)
class Room:
    """One game before it is written: a room, what is in it, and the task.

    Attributes:
        targets: the things to be moved (two for pick-two); `things` holds them as well.
        goal: type of the place that must receive them; for the lamp task the lamp's type.
        helper: the place with the appliance or the lamp; None for plain moving tasks.
    """

    task_type: str
    scene: Scene
    places: tuple[Place, ...]
    things: tuple[Thing, ...]
    targets: tuple[Thing, ...]
    goal: str
    helper: Place | None


def sample_room(task_type: str, candidates: Sequence[Scene], knobs: Knobs, rng: Random) -> Room:
    """Draw one solvable game; raises `EnvError` if the knobs leave no such room."""
    goals = import_alfworld("alfworld.gen.constants").GOALS_VALID[task_type]
    fitting = [scene for scene in candidates if scene.room in goals]
    for _ in range(_ATTEMPTS if fitting else 0):
        room = _try_room(task_type, rng.choice(fitting), knobs, rng)
        if room is not None:
            return room
    raise EnvError(
        f"found no room for {task_type} in floor plans {[scene.number for scene in candidates]} with {knobs}: "
        "allow more floor plans, receptacles or objects"
    )


def _try_room(task_type: str, scene: Scene, knobs: Knobs, rng: Random) -> Room | None:
    task = _draw_task(task_type, scene, rng)
    if task is None:
        return None
    kind, goal, helper = task
    needed = [] if helper is None else [helper]
    if task_type != "look_at_obj_in_light":
        needed.append(rng.choice([p for p in scene.places if p.type == goal]))
    places = _draw_places(scene, needed, knobs, rng)
    sources = [p for p in places if p.type != goal and kind in contents()[p.type]]
    if not sources or not knobs.receptacles[0] <= len(places):
        return None
    count = 2 if task_type == "pick_two_obj_and_place" else 1
    names = _Names(rng)
    targets = [names.thing(kind, rng.choice(sources)) for _ in range(count)]
    others = _draw_others(scene, places, kind, rng.randint(*knobs.objects) - count, knobs, names, rng)
    if len(others) + count < knobs.objects[0]:
        return None
    things = [*targets, *others]
    if goal == LAMP and helper is not None:
        things.append(names.thing(LAMP, helper))
    return Room(task_type, scene, tuple(sorted(places)), tuple(things), tuple(targets), goal, helper)


def _draw_task(task_type: str, scene: Scene, rng: Random) -> tuple[str, str, Place | None] | None:
    """``(object type, goal type, helper place)`` that this floor plan allows, or None."""
    helper: Place | None = None
    kinds = [kind for kind in scene.objects if any(kind in contents()[p.type] for p in scene.places)]
    if task_type == "look_at_obj_in_light":
        lamps = [p for p in scene.places if p.type in _LAMP_PLACES]
        if LAMP not in scene.objects or not lamps or not kinds:
            return None
        return rng.choice(kinds), LAMP, rng.choice(lamps)
    if task_type in APPLIANCES:
        appliance, ability = APPLIANCES[task_type]
        able = import_alfworld("alfworld.gen.constants").VAL_ACTION_OBJECTS[ability]
        kinds = [kind for kind in kinds if kind in able]
        helpers = [p for p in scene.places if p.type == appliance]
        if not helpers:
            return None
        helper = rng.choice(helpers)
    if not kinds:
        return None
    kind = rng.choice(kinds)
    goals = sorted({p.type for p in scene.places if kind in contents()[p.type]} - {helper.type if helper else ""})
    return (kind, rng.choice(goals), helper) if goals else None


def _draw_places(scene: Scene, needed: list[Place], knobs: Knobs, rng: Random) -> list[Place]:
    """`needed` and random others, each with a spot of its own, so that every place can be walked to from any other."""
    wanted = rng.randint(*knobs.receptacles)
    chosen: list[Place] = []
    rest = [p for p in scene.places if p not in needed and (knobs.closed_places or not p.closed)]
    for place in [*needed, *rng.sample(rest, len(rest))]:
        if len(chosen) < wanted and all(place.location != other.location for other in chosen):
            chosen.append(place)
    return chosen if all(place in chosen for place in needed) else []


def _draw_others(
    scene: Scene, places: list[Place], target: str, count: int, knobs: Knobs, names: _Names, rng: Random
) -> list[Thing]:
    made: Counter[str] = Counter()
    things: list[Thing] = []
    for _ in range(max(count, 0)):
        place = rng.choice(places)
        kinds = [k for k in scene.objects if k in contents()[place.type] and k != target and made[k] < knobs.copies]
        if kinds:
            kind = rng.choice(kinds)
            made[kind] += 1
            things.append(names.thing(kind, place))
    return things


class _Names:
    """Unique object ids near the place that holds them, in ALFRED's notation."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._used: set[str] = set()

    def thing(self, kind: str, place: Place) -> Thing:
        base = [float(number) for number in place.id.split("|")[1:4]]
        while True:
            position = [value + self._rng.uniform(-0.4, 0.4) for value in base]
            name = "|".join([kind, *(f"{value:+06.2f}" for value in position)])
            if name not in self._used:
                self._used.add(name)
                return Thing(name, kind, place)
