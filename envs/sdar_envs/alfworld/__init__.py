"""ALFWorld: household tasks in text, played by the real ALFWorld/TextWorld engine.

Importing this package is light; the engine is imported when the first environment is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdar_envs.alfworld.games import TASK_TYPES, find_games, read_walkthrough
from sdar_envs.base import EnvError, PromptFormat, TaskRef, TextEnv
from sdar_envs.registry import EnvFamily

_DEFAULTS: dict[str, Any] = {
    "data_root": None,
    "splits": None,  # which split trains and which validates: read by the trainer
    "max_steps": 50,
    "history_length": 2,
    "thinking": True,
    "require_admissible": False,
    "room_list": False,
    "success_reward": 10.0,
    "task_types": None,
    "engine": "fast",
}


class AlfworldFamily(EnvFamily):
    """ALFWorld by configuration: `data_root`, `max_steps`, `history_length`, `thinking`, `require_admissible`,
    `room_list`, `success_reward`, `task_types` and `engine`; unknown keys are refused."""

    name = "alfworld"
    task_types = TASK_TYPES
    defaults = _DEFAULTS
    own_keys = (
        "data_root", "splits", "task_types", "history_length", "thinking", "require_admissible", "room_list", "engine"
    )  # fmt: skip

    def tasks(self, config: Mapping[str, Any], split: str) -> list[TaskRef]:
        settings = self.settings(config)
        if settings["data_root"] is None:
            raise EnvError("env.alfworld.data_root is not set: name the folder that holds the split folders")
        return find_games(settings["data_root"], split, settings["task_types"])

    def make_env(self, config: Mapping[str, Any]) -> TextEnv:
        from sdar_envs.alfworld.env import AlfworldEnv

        settings = self.settings(config)
        return AlfworldEnv(
            engine=settings["engine"],
            max_steps=settings["max_steps"],
            success_reward=settings["success_reward"],
        )

    def make_format(self, config: Mapping[str, Any]) -> PromptFormat:
        from sdar_envs.alfworld.format import AlfworldFormat

        settings = self.settings(config)
        return AlfworldFormat(
            thinking=settings["thinking"],
            history_length=settings["history_length"],
            require_admissible=settings["require_admissible"],
            room_list=settings["room_list"],
        )

    def reference(self, config: Mapping[str, Any], task: TaskRef) -> list[str]:
        return read_walkthrough(task.path)


FAMILY = AlfworldFamily()
