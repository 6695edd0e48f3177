"""The PDDL problem and the walkthrough of a sampled room."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache

from sdar_envs.alfworld.packages import import_alfworld
from sdar_envs.alfworld.sampling import APPLIANCES, LAMP, Place, Room, Thing
from sdar_envs.alfworld.scenes import contents, package_folder

_MANGLED = {"-": "_minus_", "|": "_bar_", "+": "_plus_", ".": "_dot_", ",": "_comma_"}
_ABILITIES = {"Cleanable": "cleanable", "Heatable": "heatable", "Coolable": "coolable", "Sliceable": "sliceable"}
_VERBS = {
    "pick_clean_then_place_in_recep": "clean",
    "pick_heat_then_place_in_recep": "heat",
    "pick_cool_then_place_in_recep": "cool",
}


@lru_cache(maxsize=1)
def domain() -> str:
    """ALFWorld's PDDL domain."""
    return (package_folder() / "data" / "alfred.pddl").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _grammar() -> str:
    return (package_folder() / "data" / "alfred.twl2").read_text(encoding="utf-8")


def grammar(sentence: str) -> str:
    """ALFWorld's grammar with the task sentence in its place."""
    return _grammar().replace("UNKNOWN GOAL", sentence)


def task_templates(task_type: str) -> list[str]:
    """ALFWorld's sentence templates for a task type, with the fields ``obj``, ``recep`` and ``toggle``."""
    return list(import_alfworld("alfworld.gen.goal_library").gdict[task_type]["templates"])


def mangle(name: str) -> str:
    """An ALFRED id as the PDDL files spell it."""
    return "".join(_MANGLED.get(char, char) for char in name)


def problem(room: Room, name: str) -> str:
    """The PDDL problem of `room`, called ``plan_<name>``."""
    place_types = sorted({place.type for place in room.places})
    kinds = sorted({thing.type for thing in room.things})
    spots = sorted({place.location for place in room.places})
    start = _start(spots)
    objects = ["agent1 - agent"]
    objects += [f"{kind}Type - otype" for kind in kinds] + [f"{kind}Type - rtype" for kind in place_types]
    objects += [f"{mangle(thing.id)} - object" for thing in room.things]
    objects += [f"{mangle(place.id)} - receptacle" for place in room.places]
    objects += [f"{mangle(spot)} - location" for spot in [start, *spots]]
    facts = [f"canContain {p}Type {kind}Type" for p in place_types for kind in kinds if kind in contents()[p]]
    for place in room.places:
        facts += _place_facts(place)
    for thing in room.things:
        facts += _thing_facts(thing)
    facts.append(f"atLocation agent1 {mangle(start)}")
    goal = import_alfworld("alfworld.gen.goal_library").gdict[room.task_type]["pddl"].replace("#", "-")
    return (
        f"(define (problem plan_{name})\n(:domain alfred)\n(:objects\n  "
        + "\n  ".join(objects)
        + "\n)\n(:init\n  "
        + "\n  ".join(f"({fact})" for fact in facts)
        + "\n)\n"
        + goal.format(obj=room.targets[0].type, recep=room.goal, toggle=room.goal)
    )


def _place_facts(place: Place) -> list[str]:
    name = mangle(place.id)
    facts = [f"receptacleType {name} {place.type}Type", f"receptacleAtLocation {name} {mangle(place.location)}"]
    return [*facts, f"openable {name}"] if place.closed else facts


def _thing_facts(thing: Thing) -> list[str]:
    constants = import_alfworld("alfworld.gen.constants")
    name = mangle(thing.id)
    facts = [
        f"objectType {name} {thing.type}Type",
        f"inReceptacle {name} {mangle(thing.place.id)}",
        f"objectAtLocation {name} {mangle(thing.place.location)}",
        f"toggleable {name}" if thing.type == LAMP else f"pickupable {name}",
    ]
    if thing.type in constants.MOVABLE_RECEPTACLES_SET:
        facts.append(f"isReceptacleObject {name}")
    facts += [
        f"{fact} {name}" for ability, fact in _ABILITIES.items() if thing.type in constants.VAL_ACTION_OBJECTS[ability]
    ]
    return facts


def _start(spots: list[str]) -> str:
    """A spot in the middle of the room, where nothing is."""
    return next(spot for x in range(len(spots) + 1) if (spot := f"loc|{x}|0|0|30") not in spots)


def spoken_names(room: Room) -> dict[str, str]:
    """What the engine calls each place and thing: id -> ``"cabinet 2"``.

    The engine sorts the ids of one kind and hands out the numbers from the highest down.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for item in [*room.places, *room.things]:
        groups[_spoken_kind(item.id)].append(item.id)
    names: dict[str, str] = {}
    for kind, ids in groups.items():
        for rank, id in enumerate(sorted(ids, key=lambda id: mangle(id).lower())):
            names[id] = f"{kind} {len(ids) - rank}"
    return names


def _spoken_kind(id: str) -> str:
    kind, _, rest = id.lower().partition("|")
    return f"{kind}basin" if "basin" in rest else kind


def walkthrough(room: Room) -> list[str]:
    """A winning list of commands, read off the known placement; not always the shortest."""
    names = spoken_names(room)
    opened: set[str] = set()
    commands: list[str] = []
    here = ""

    def visit(place: Place, *, open_it: bool) -> None:
        nonlocal here
        if here != place.id:
            commands.append(f"go to {names[place.id]}")
            here = place.id
        if open_it and place.closed and place.id not in opened:
            opened.add(place.id)
            commands.append(f"open {names[place.id]}")

    goal = next((place for place in room.places if place.type == room.goal), None)
    for thing in room.targets:
        name = names[thing.id]
        visit(thing.place, open_it=True)
        commands.append(f"take {name} from {names[thing.place.id]}")
        if room.task_type in APPLIANCES and room.helper is not None:
            visit(room.helper, open_it=False)
            commands.append(f"{_VERBS[room.task_type]} {name} with {names[room.helper.id]}")
        if goal is not None:
            visit(goal, open_it=True)
            commands.append(f"move {name} to {names[goal.id]}")
        elif room.helper is not None:
            visit(room.helper, open_it=False)
            lamp = next(item for item in room.things if item.type == LAMP)
            commands.append(f"use {names[lamp.id]}")
    return commands
