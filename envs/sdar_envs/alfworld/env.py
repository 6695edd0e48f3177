"""One ALFWorld game as a text environment."""

from __future__ import annotations

import math

from sdar_envs.alfworld.engine import Engine, EngineState, make_engine
from sdar_envs.base import EnvError, StepInfo, TaskRef, TextEnv

_TASK_MARK = "Your task is to: "


class AlfworldEnv(TextEnv):
    """ALFWorld through `TextEnv`: reward `success_reward` on the winning step, 0 before.

    The episode is terminated by winning and truncated after `max_steps` steps without it.

    Args:
        engine: ``fast`` or ``stock``.
        max_steps: steps an episode may take, at least 1.
        success_reward: reward of the winning step.
    """

    def __init__(self, *, engine: str = "fast", max_steps: int = 50, success_reward: float = 10.0) -> None:
        if not isinstance(max_steps, int) or max_steps < 1:
            raise EnvError(f"max_steps must be a whole number of at least 1, got {max_steps!r}")
        if not isinstance(success_reward, int | float) or not 0 < success_reward < math.inf:
            raise EnvError(f"success_reward must be a positive number, got {success_reward!r}")
        self._engine: Engine | None = make_engine(engine)
        self._max_steps = max_steps
        self._success_reward = float(success_reward)
        self._loaded = ""
        self._task: TaskRef | None = None
        self._description = ""
        self._steps = 0
        self._over = True

    def reset(self, *, task: TaskRef, seed: int | None = None) -> tuple[str, StepInfo]:
        """Start `task`. The engine is deterministic: `seed` is accepted and changes nothing."""
        if self._engine is None:
            raise EnvError("this environment was closed; make a new one")
        self._over = True
        if self._loaded != task.path:
            self._loaded = ""
            self._engine.load(task.path)
            self._loaded = task.path
        state = self._engine.reset()
        self._task = task
        self._description = task_description(state.feedback)
        self._steps = 0
        self._over = state.won
        return state.feedback, self._info(state)

    def step(self, action: str) -> tuple[str, float, bool, bool, StepInfo]:
        if self._engine is None or self._over:
            raise EnvError("no episode is running: call reset before step")
        state = self._engine.step(action)
        self._steps += 1
        truncated = not state.won and self._steps >= self._max_steps
        self._over = state.won or truncated
        reward = self._success_reward if state.won else 0.0
        return state.feedback, reward, state.won, truncated, self._info(state)

    def close(self) -> None:
        self._engine = None

    def _info(self, state: EngineState) -> StepInfo:
        assert self._task is not None
        return StepInfo(
            task_id=self._task.id,
            task_type=self._task.task_type,
            task_description=self._description,
            admissible_actions=list(state.admissible),
            won=state.won,
            step=self._steps,
        )


def task_description(intro: str) -> str:
    """The task sentence of a game's first observation: the text behind ``Your task is to: ``."""
    _, mark, rest = intro.rpartition(_TASK_MARK)
    if not mark or not rest.strip():
        raise EnvError(f"the game's intro names no task (no {_TASK_MARK!r} in it)")
    return rest.strip()
