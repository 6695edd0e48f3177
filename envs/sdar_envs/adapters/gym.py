"""Environments for gymnasium (extra `gymnasium`).

::

    import gymnasium
    env = gymnasium.make("sdar_envs.adapters.gym:sdar/alfworld-v0", config={"data_root": "games"}, split="train")
    observation, info = env.reset(seed=0, options={"task": "<task id>"})
    observation, reward, terminated, truncated, info = env.step(info["admissible_actions"][0])

Importing this module registers ``sdar/<name>-v0`` for every environment. Texts go in and out as they are; nothing is
reset by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium

from sdar_envs import registry
from sdar_envs.base import EnvError, StepInfo, TaskRef


class AnyText(gymnasium.Space[str]):
    """Any text at all. `sample` draws from `choices`, the admissible actions, or is empty where there are none."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(dtype=str, seed=seed)
        self.choices: Sequence[str] = ()

    def sample(self, mask: None = None, probability: None = None) -> str:
        if mask is not None or probability is not None:
            raise EnvError("texts have neither masks nor probabilities; draw from info['admissible_actions'] instead")
        return self.choices[int(self.np_random.integers(len(self.choices)))] if self.choices else ""

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "AnyText()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyText)


class GymTextEnv(gymnasium.Env[str, str]):
    """One environment of a registered family, in this process; engines are not thread-safe.

    Args:
        family: name of the family.
        config: its configuration.
        split: whose tasks are played.
        render_mode: ``ansi`` lets `render` return the last observation.

    Raises:
        EnvError: the family does not exist, or the split has no tasks.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}

    def __init__(
        self,
        family: str,
        config: Mapping[str, Any] | None = None,
        split: str = "train",
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, "ansi"):
            raise EnvError(f"render_mode={render_mode!r} is unknown; known: ansi")
        self.render_mode = render_mode
        self.observation_space, self.action_space = AnyText(), AnyText()
        known = registry.get(family)
        self.tasks: dict[str, TaskRef] = {task.id: task for task in known.tasks(config or {}, split)}
        self._ids = list(self.tasks)
        self._env = known.make_env(config or {})
        self._shown = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start the task ``options["task"]`` (an id), or one drawn at random; `seed` seeds the drawing and the task."""
        super().reset(seed=seed)
        unknown = sorted(set(options or {}) - {"task"})
        if unknown:
            raise EnvError(f"unknown reset options: {', '.join(unknown)}; known: task")
        name = (options or {}).get("task")
        if name is None:
            name = self._ids[int(self.np_random.integers(len(self._ids)))]
        if name not in self.tasks:
            raise EnvError(f"there is no task {name!r} among the {len(self.tasks)} of this split")
        observation, info = self._env.reset(task=self.tasks[name], seed=seed)
        return self._show(observation, info)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self._env.step(action)
        shown, info = self._show(observation, info)
        return shown, float(reward), terminated, truncated, info

    def render(self) -> str | None:
        return self._shown if self.render_mode == "ansi" else None

    def close(self) -> None:
        self._env.close()

    def _show(self, observation: str, info: StepInfo) -> tuple[str, dict[str, Any]]:
        self._shown = observation
        self.action_space.choices = info["admissible_actions"]
        return observation, dict(info)


for _name in registry.names():
    gymnasium.register(f"sdar/{_name}-v0", entry_point="sdar_envs.adapters.gym:GymTextEnv", kwargs={"family": _name})
