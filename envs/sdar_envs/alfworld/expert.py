"""A scripted player that sees no more than the agent does, and a worse one that lacks the skill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from sdar_envs.alfworld.games import TASK_TYPES
from sdar_envs.alfworld.goal import Goal, read_goal
from sdar_envs.alfworld.room import room_places
from sdar_envs.base import EnvError, EpisodeView

_REFUSED = "Nothing happens."
_PREPARATIONS = {
    "pick_clean_then_place_in_recep": ("clean", "sinkbasin"),
    "pick_heat_then_place_in_recep": ("heat", "microwave"),
    "pick_cool_then_place_in_recep": ("cool", "fridge"),
}
_IDLE = "look"


class Expert:
    """Fair and nearly memoryless: it knows the task sentence, the room's list of places and what happened so far.

    It does not know where things are. Its plan:

    1. Without the object: take it where it is seen, open what is closed here, else walk to the next place in the order
       of the room's list, starting over at the end.
    2. With the object: clean, heat or cool it at the first sink basin, microwave or fridge of the list where the task
       asks for that; then bring it to the first place of the wanted kind. For the lamp task, walk on through the list
       until a lamp can be used.
    3. For two objects: bring one, walk on from there, never take back what lies at the goal.
    4. Put down anything else that it holds.

    Every decision can be made from a prompt that shows the task, the list of places, the admissible actions and the last
    two steps: where it stands and what it holds is in the latest observations, and step 2's order makes "holding the
    object in front of the goal" mean "ready to put down".

    `act` depends on the view alone, so it can also label states that another player reached.

    Args:
        seed: of the random choices, if there are any; an episode's choices depend on the seed and the game only.
        wrong_subgoal: probability per step of following the plan of another task type, as one does who does not know
            what this type needs.
        random_action: probability per step of any admissible action.

    Raises:
        EnvError: a probability outside 0..1, a task sentence or a first observation that is not ALFWorld's.
    """

    def __init__(self, seed: int = 0, *, wrong_subgoal: float = 0.0, random_action: float = 0.0) -> None:
        for name, value in (("wrong_subgoal", wrong_subgoal), ("random_action", random_action)):
            if not 0.0 <= value <= 1.0:
                raise EnvError(f"{name} is {value}; it is a probability between 0 and 1")
        self.seed = seed
        self.wrong_subgoal = wrong_subgoal
        self.random_action = random_action
        self._rng = Random(seed)
        self._goal: Goal | None = None
        self._places: list[str] = []

    def reset(self, task_description: str, first_observation: str) -> None:
        """Start an episode."""
        self._goal = read_goal(task_description)
        self._places = room_places(first_observation)
        if not self._places:
            raise EnvError("the first observation lists no places; pass the observation that `reset` of the game gave")
        self._rng = Random(f"{self.seed}/{first_observation}")

    def act(self, view: EpisodeView) -> str:
        """The command to play now; always admissible."""
        if self._goal is None:
            raise EnvError("call reset before act")
        actions = [action for action in view.admissible_actions if action != "help"]
        if self._rng.random() < self.random_action:
            return self._rng.choice(actions)
        goal = self._goal
        if self._rng.random() < self.wrong_subgoal:
            others = [task_type for task_type in TASK_TYPES if task_type != goal.task_type]
            goal = replace(goal, task_type=self._rng.choice(others))
        return _decide(goal, self._places, actions, _recall(view))


def corrupt(expert: Expert, *, wrong_subgoal: float = 0.0, random_action: float = 0.0) -> Expert:
    """A worse player with `expert`'s seed: the labels of play without the skill."""
    return Expert(expert.seed, wrong_subgoal=wrong_subgoal, random_action=random_action)


@dataclass(frozen=True)
class _Memory:
    """What follows from the history: where the player stands, what it holds, what was done to things."""

    here: str
    held: str
    done: frozenset[tuple[str, str]]  # (verb, thing)


def _recall(view: EpisodeView) -> _Memory:
    here = held = ""
    done: set[tuple[str, str]] = set()
    answers = [observation for observation, _ in view.history[1:]] + [view.observation]
    for (_, action), answer in zip(view.history, answers, strict=False):
        if answer.startswith(_REFUSED):
            continue
        verb, _, rest = action.partition(" ")
        if action.startswith("go to "):
            here = action.removeprefix("go to ")
        elif verb == "take":
            held = _two_words(rest)
        elif verb in ("move", "put"):
            held = ""
        elif verb in ("clean", "heat", "cool"):
            done.discard(({"heat": "cool", "cool": "heat"}.get(verb, ""), _two_words(rest)))
            done.add((verb, _two_words(rest)))
    return _Memory(here, held, frozenset(done))


def _decide(goal: Goal, places: Sequence[str], actions: Sequence[str], memory: _Memory) -> str:
    if memory.held and _kind(memory.held) == goal.thing:
        return _deliver(goal, places, actions, memory)
    if memory.held:
        return _find(actions, f"move {memory.held} to ", f"put {memory.held} in") or _explore(places, actions, memory)
    for action in actions:
        if action.startswith(f"take {goal.thing} ") and not _delivered(goal, places, action):
            return action
    return _explore(places, actions, memory)


def _deliver(goal: Goal, places: Sequence[str], actions: Sequence[str], memory: _Memory) -> str:
    if goal.task_type == "look_at_obj_in_light":
        return _find(actions, f"use {goal.place} ") or _walk_on(places, actions, memory)
    verb, appliance = _PREPARATIONS.get(goal.task_type, ("", ""))
    if verb and (verb, memory.held) not in memory.done:
        return _find(actions, f"{verb} {memory.held} with ") or _visit(appliance, places, actions, memory)
    target = _first(places, goal.place)
    put = _find(actions, f"move {memory.held} to {target}", f"put {memory.held} in/on {target}") if target else ""
    return put or (_find(actions, f"open {target}") if target else "") or _visit(goal.place, places, actions, memory)


def _delivered(goal: Goal, places: Sequence[str], take: str) -> bool:
    """Whether `take` would take back one of the two things from the place that collects them."""
    return goal.task_type == "pick_two_obj_and_place" and take.endswith(f" from {_first(places, goal.place)}")


def _explore(places: Sequence[str], actions: Sequence[str], memory: _Memory) -> str:
    return _find(actions, "open ") or _walk_on(places, actions, memory)


def _visit(kind: str, places: Sequence[str], actions: Sequence[str], memory: _Memory) -> str:
    """Walk to the first place of a kind; on through the list where the room has none."""
    target = _first(places, kind)
    return _exact(actions, f"go to {target}") or _walk_on(places, actions, memory)


def _walk_on(places: Sequence[str], actions: Sequence[str], memory: _Memory) -> str:
    start = places.index(memory.here) + 1 if memory.here in places else 0
    for place in [*places[start:], *places[:start]]:
        if place != memory.here and f"go to {place}" in actions:
            return f"go to {place}"
    return _IDLE


def _first(places: Sequence[str], kind: str) -> str:
    return next((place for place in places if _kind(place) == kind), "")


def _exact(actions: Sequence[str], wanted: str) -> str:
    return wanted if wanted in actions else ""


def _find(actions: Sequence[str], *starts: str) -> str:
    return next((action for action in actions if action.startswith(starts)), "")


def _kind(name: str) -> str:
    return name.partition(" ")[0]


def _two_words(text: str) -> str:
    return " ".join(text.split(" ")[:2])
