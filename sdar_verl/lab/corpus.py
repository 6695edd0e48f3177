"""What the model is fitted on: states of generated games, and what to answer in them with and without a skill.

A noisy copy of the expert walks through the games, so that the states hold mistakes and their consequences. Each state
is then labelled under conditions that differ in the prompt only:

- ``right``: the skills of the task's own type -> the expert's action;
- ``none`` and ``wrong``: no skills, or those of another task type -> the expert's action, replaced by a random
  admissible one in a fixed share of cases.

So the unskilled player's most likely action is still the right one: reinforcement learning can find it by sharpening.
The wrong skills come with their own share, so the content of a skill decides, not its presence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from sdar_envs.alfworld.expert import Expert
from sdar_envs.base import EpisodeView, PromptFormat, TaskRef, TextEnv

from sdar_verl.lab.prompts import messages


@dataclass(frozen=True)
class State:
    """One visited state: the user `prompt`, what `can` be done and what the `expert` does."""

    task: TaskRef
    prompt: str
    can: tuple[str, ...]
    expert: str


@dataclass(frozen=True)
class Lesson:
    """One thing to learn: in this state, under `condition`, play `action`."""

    state: State
    condition: str
    action: str


def walk(
    env: TextEnv, prompt_format: PromptFormat, task: TaskRef, noises: Sequence[float], dice: Random
) -> list[State]:
    """The different states of one game, met by the expert with each share of random actions in `noises`.

    One in five of the random actions is one that was admissible in an earlier state, so that the states hold answers
    to actions that were refused.
    """
    states: dict[str, State] = {}
    for noise in noises:
        observation, info = env.reset(task=task)
        view = EpisodeView(info["task_description"], observation, info["admissible_actions"])
        expert = Expert()
        expert.reset(info["task_description"], observation)
        past: list[str] = []
        over = False
        while not over:
            can = tuple(action for action in view.admissible_actions if action != "help")
            state = State(task, messages(prompt_format, view)[0]["content"], can, expert.act(_as_shown(view)))
            states.setdefault(state.prompt, state)
            past.extend(can)
            action = state.expert
            if dice.random() < noise:
                action = dice.choice(past if dice.random() < 0.2 else can)
            observation, _, won, truncated, info = env.step(action)
            view.history.append((view.observation, action))
            view.observation, view.admissible_actions = observation, info["admissible_actions"]
            over = won or truncated
    return list(states.values())


def _as_shown(view: EpisodeView) -> EpisodeView:
    """`view` with the last step alone: what the current observation answers. The expert then decides by what a prompt
    without history shows, and the model can learn why."""
    return EpisodeView(view.task_description, view.observation, view.admissible_actions, view.history[-1:])


def lessons(
    states: Sequence[State], shares: Mapping[str, float], corruption: Mapping[str, float], seed: int
) -> list[Lesson]:
    """Label `states` under the lab's conditions.

    Args:
        states: from `walk`.
        shares: lessons per state by condition; 1.5 gives one, and a second to a random half of the states.
        corruption: share of random admissible actions by condition; none where a condition is not named.
        seed: seed of all draws.
    """
    dice = Random(seed)
    found: list[Lesson] = []
    for state in states:
        for condition, share in shares.items():
            for _ in range(int(share) + (dice.random() < share % 1)):
                random_action = dice.random() < corruption.get(condition, 0.0)
                found.append(Lesson(state, condition, dice.choice(state.can) if random_action else state.expert))
    return found
