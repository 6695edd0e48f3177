"""What the model is fitted on: states of generated games, and what to answer in them with and without a skill.

A noisy copy of the expert walks through the games, so that the states hold mistakes and their consequences. Each state
is then labelled under conditions that differ in the prompt only:

- ``right``: the skills of the task's own type -> the expert's action;
- ``wrong``: the skills of another task type -> what the expert would do if the task were of that type;
- ``none``: no skills -> the expert's action, or in a fixed share of cases another type's or any admissible one.

So a skill is followed for what it says, not for being there, and the unskilled player's most likely action is still the
right one: reinforcement learning can find it by sharpening.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from sdar_envs.base import EpisodeView, PromptFormat, TaskRef, TextEnv

from sdar_verl.lab.envs.base import LabEnv
from sdar_verl.lab.prompts import SkillShelf, messages
from sdar_verl.skills import Skill


@dataclass(frozen=True)
class State:
    """One visited state: the user `prompt`, what `can` be done, and the expert's action by task type (`plans`)."""

    task: TaskRef
    prompt: str
    can: tuple[str, ...]
    plans: Mapping[str, str]

    @property
    def expert(self) -> str:
        """The right action: by the plan of the task's own type."""
        return self.plans[self.task.task_type]


@dataclass(frozen=True)
class Lesson:
    """One thing to learn: in this state, under `condition`, with `skills` in the prompt, play `action`."""

    state: State
    condition: str
    skills: tuple[Skill, ...]
    action: str


def walk(
    lab: LabEnv, env: TextEnv, prompt_format: PromptFormat, task: TaskRef, noises: Sequence[float], dice: Random
) -> list[State]:
    """The different states of one game, met by the expert with each share of random actions in `noises`.

    One in five of the random actions is one that was admissible in an earlier state, so that the states hold answers
    to actions that were refused.
    """
    states: dict[str, State] = {}
    for noise in noises:
        observation, info = env.reset(task=task)
        view = EpisodeView(info["task_description"], observation, info["admissible_actions"])
        player = lab.player(view)
        past: list[str] = []
        over = False
        while not over:
            can, plans = player.can(view), player.plans(view)
            state = State(task, messages(prompt_format, view)[0]["content"], can, plans)
            states.setdefault(state.prompt, state)
            past.extend(can)
            action = state.expert
            if dice.random() < noise:
                action = dice.choice(past if dice.random() < 0.2 else can)
            observation, _, ended, truncated, info = env.step(action)
            view.history.append((view.observation, action))
            view.observation, view.admissible_actions = observation, info["admissible_actions"]
            over = ended or truncated
    return list(states.values())


def lessons(
    states: Sequence[State],
    shelf: SkillShelf,
    shares: Mapping[str, float],
    *,
    wrong_plan: float = 0.0,
    random_action: float = 0.0,
    seed: int,
) -> list[Lesson]:
    """Label `states` under the lab's conditions.

    Args:
        states: from `walk`.
        shelf: gives the skills.
        shares: lessons per state by condition; 1.5 gives one, and a second to a random half of the states.
        wrong_plan: without skills, share of actions by the plan of another task type.
        random_action: without skills, share of random admissible actions; drawn first.
        seed: seed of all draws.
    """
    dice = Random(seed)
    found: list[Lesson] = []
    for state in states:
        for condition, share in shares.items():
            for _ in range(int(share) + (dice.random() < share % 1)):
                skills = tuple(shelf.skills(condition, state.task, seed=dice.getrandbits(32)))
                plan = next((skill.task_type for skill in skills if skill.task_type), state.task.task_type)
                action = state.plans[plan]
                if not skills and dice.random() < random_action:
                    action = dice.choice(state.can)
                elif not skills and dice.random() < wrong_plan:
                    action = state.plans[dice.choice([other for other in state.plans if other != plan])]
                found.append(Lesson(state, condition, skills, action))
    return found
