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
_TREATMENTS = ("take", "clean", "heat", "cool")
_WINDOW = 2
_IDLE = "look"


class Expert:
    """Fair and nearly memoryless: it knows the task sentence, the room's list of places and its last two steps.

    It does not know where things are. Its plan:

    1. Without the object: take it where it is seen, open what is closed here, else walk to the next place in the order
       of the room's list, starting over at the end.
    2. With the object: clean, heat or cool it at the first sink basin, microwave or fridge of the list where the task
       asks for that; then bring it to the first place of the wanted kind. For the lamp task, walk on through the list
       until a lamp can be used.
    3. For two objects: bring one, walk on from there, never take back what lies at the goal.
    4. Put down anything else that it holds.

    So each decision can be made from a prompt with the list of places (`AlfworldFormat(room_list=True)`), a history of
    two steps and the admissible actions: these tell where it stands and what it holds, and standing at the goal with
    the object means that the object is ready, unless the last two steps say that it was taken just now.

    `act` depends on the view alone, so it can also label states that another player reached.

    Args:
        seed: of the random choices, if there are any; an episode's choices depend on the seed and the game only.
        wrong_subgoal: probability per step of following the plan of another task type, as one does who does not know
            what this type needs.
        random_action: probability per step of any admissible action.
        plan: follow the plan of this task type whatever the sentence asks for, as one does who was told the wrong
            thing; None follows the sentence.

    Raises:
        EnvError: a probability outside 0..1, an unknown `plan`, a task sentence or a first observation that is not
            ALFWorld's.
    """

    def __init__(
        self, seed: int = 0, *, wrong_subgoal: float = 0.0, random_action: float = 0.0, plan: str | None = None
    ) -> None:
        for name, value in (("wrong_subgoal", wrong_subgoal), ("random_action", random_action)):
            if not 0.0 <= value <= 1.0:
                raise EnvError(f"{name} is {value}; it is a probability between 0 and 1")
        if plan is not None and plan not in TASK_TYPES:
            raise EnvError(f"unknown plan {plan!r}; known: {', '.join(TASK_TYPES)}")
        self.seed = seed
        self.plan = plan
        self.wrong_subgoal = wrong_subgoal
        self.random_action = random_action
        self._rng = Random(seed)
        self._goal: Goal | None = None
        self._places: list[str] = []

    def reset(self, task_description: str, first_observation: str) -> None:
        """Start an episode."""
        goal = read_goal(task_description)
        self._goal = replace(goal, task_type=self.plan or goal.task_type)
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
        return _decide(goal, self._places, actions, _look_around(view, self._places, actions))


def corrupt(expert: Expert, *, wrong_subgoal: float = 0.0, random_action: float = 0.0) -> Expert:
    """A worse player with `expert`'s seed and plan: the labels of play without the skill."""
    return Expert(expert.seed, wrong_subgoal=wrong_subgoal, random_action=random_action, plan=expert.plan)


@dataclass(frozen=True)
class _Situation:
    """What the player can tell from the admissible actions and the last steps.

    Attributes:
        here: the place it stands at; empty in the middle of the room.
        held: the thing in its hand (``"mug 2"``), empty for none.
        treated: what was last done to the thing held ("take", "clean", "heat", "cool"), empty if the last steps do not
            show it.
    """

    here: str
    held: str
    treated: str


def _look_around(view: EpisodeView, places: Sequence[str], actions: Sequence[str]) -> _Situation:
    """Only what is at hand can be examined: the places within reach and the thing held."""
    at_hand = [action.removeprefix("examine ") for action in actions if action.startswith("examine ")]
    held = next((name for name in at_hand if name not in places), "")
    within_reach = [place for place in places if place in at_hand]
    here = within_reach[-1] if within_reach else ""
    treated = ""
    steps = view.history[-_WINDOW:]
    answers = [observation for observation, _ in [*steps[1:], (view.observation, "")]]
    for (_, action), answer in zip(steps, answers, strict=False):
        if answer.startswith(_REFUSED):
            continue
        verb, _, rest = action.partition(" ")
        if verb == "go" and action.removeprefix("go to ") in within_reach:
            here = action.removeprefix("go to ")
        elif verb in _TREATMENTS and held and rest.startswith(f"{held} "):
            treated = verb
    return _Situation(here, held, treated)


def _decide(goal: Goal, places: Sequence[str], actions: Sequence[str], now: _Situation) -> str:
    if now.held and _kind(now.held) == goal.thing:
        return _deliver(goal, places, actions, now)
    if now.held:
        return _find(actions, f"move {now.held} to ", f"put {now.held} in") or _explore(places, actions, now)
    for action in actions:
        if action.startswith(f"take {goal.thing} ") and not _delivered(goal, places, action):
            return action
    return _explore(places, actions, now)


def _deliver(goal: Goal, places: Sequence[str], actions: Sequence[str], now: _Situation) -> str:
    if goal.task_type == "look_at_obj_in_light":
        return _find(actions, f"use {goal.place} ") or _walk_on(places, actions, now)
    target = _first(places, goal.place)
    verb, appliance = _PREPARATIONS.get(goal.task_type, ("", ""))
    ready = now.treated == verb or (not now.treated and now.here == target)
    if verb and not ready:
        return _find(actions, f"{verb} {now.held} with ") or _visit(appliance, places, actions, now)
    put = _find(actions, f"move {now.held} to {target}", f"put {now.held} in/on {target}") if target else ""
    return put or (_find(actions, f"open {target}") if target else "") or _visit(goal.place, places, actions, now)


def _delivered(goal: Goal, places: Sequence[str], take: str) -> bool:
    """Whether `take` would take back one of the two things from the place that collects them."""
    return goal.task_type == "pick_two_obj_and_place" and take.endswith(f" from {_first(places, goal.place)}")


def _explore(places: Sequence[str], actions: Sequence[str], now: _Situation) -> str:
    return _find(actions, "open ") or _walk_on(places, actions, now)


def _visit(kind: str, places: Sequence[str], actions: Sequence[str], now: _Situation) -> str:
    """Walk to the first place of a kind; on through the list where the room has none."""
    target = _first(places, kind)
    return _exact(actions, f"go to {target}") or _walk_on(places, actions, now)


def _walk_on(places: Sequence[str], actions: Sequence[str], now: _Situation) -> str:
    start = places.index(now.here) + 1 if now.here in places else 0
    for place in [*places[start:], *places[:start]]:
        if place != now.here and f"go to {place}" in actions:
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
