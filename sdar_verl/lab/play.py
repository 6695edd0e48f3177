"""Playing many games at once in this process: one step of every running game, then one batch for the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sdar_envs.base import EpisodeView, PromptFormat, TaskRef, TextEnv

Chooser = Callable[[list[tuple[TaskRef, EpisodeView]]], list[str]]


@dataclass
class Outcome:
    """How one game went.

    Attributes:
        task: the game.
        won: whether the goal was reached in time.
        steps: environment steps taken.
        valid: how many answers were parsed as valid.
        admissible: how many actions the environment understood.
        actions: the actions as played.
    """

    task: TaskRef
    won: bool = False
    steps: int = 0
    valid: int = 0
    admissible: int = 0
    actions: list[str] = field(default_factory=list)


def play(
    tasks: Sequence[TaskRef],
    envs: Sequence[TextEnv],
    prompt_format: PromptFormat,
    choose: Chooser,
    understands: Callable[[str, Sequence[str]], bool] = lambda action, admissible: action in admissible,
) -> list[Outcome]:
    """Play each of `tasks` once in its own environment and return the outcomes in order.

    Args:
        tasks: games, at most as many as `envs`.
        envs: environments; each sets the step limit of its game.
        prompt_format: parses the answers.
        choose: gets all running games as (task, view), returns one answer text for each.
        understands: whether an action does something where these actions are admissible.

    Raises:
        ValueError: there are more tasks than environments.
    """
    if len(tasks) > len(envs):
        raise ValueError(f"{len(tasks)} games need as many environments, got {len(envs)}")
    outcomes = [Outcome(task) for task in tasks]
    views: dict[int, EpisodeView] = {}
    for number, task in enumerate(tasks):
        observation, info = envs[number].reset(task=task)
        views[number] = EpisodeView(info["task_description"], observation, info["admissible_actions"])
    while views:
        running = list(views)
        answers = choose([(tasks[number], views[number]) for number in running])
        for number, answer in zip(running, answers, strict=True):
            view, outcome = views[number], outcomes[number]
            parsed = prompt_format.parse(answer, view.admissible_actions)
            observation, _, ended, truncated, info = envs[number].step(parsed.action)
            outcome.steps += 1
            outcome.valid += parsed.valid
            outcome.admissible += understands(parsed.action, view.admissible_actions)
            outcome.actions.append(parsed.action)
            view.history.append((view.observation, parsed.action))
            view.observation, view.admissible_actions = observation, info["admissible_actions"]
            if ended or truncated:
                outcome.won = info["won"]
                del views[number]
    return outcomes
