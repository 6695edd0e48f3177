"""A tiny environment family whose actions misbehave on demand; worker processes import it by name."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from sdar_envs.base import EnvError, EnvUnreachable, StepInfo, TaskRef, TextEnv
from sdar_envs.registry import EnvFamily


class ToyEnv(TextEnv):
    """Echoes actions with the number of steps and its process id; wins on ``win``."""

    def __init__(self) -> None:
        self._task = TaskRef("", "toy", "train")
        self._steps = 0

    def reset(self, *, task: TaskRef, seed: int | None = None) -> tuple[str, StepInfo]:
        if task.id == "hang":
            time.sleep(3600)
        self._task, self._steps = task, 0
        return f"{task.id}/{seed}", self._info(False)

    def step(self, action: str) -> tuple[str, float, bool, bool, StepInfo]:
        if action == "crash":
            os._exit(7)
        if action == "hang":
            time.sleep(3600)
        if action == "spin":
            while True:
                pass
        if action == "raise":
            raise ZeroDivisionError("asked for")
        if action.startswith("sleep "):
            time.sleep(float(action.split()[1]))
        if action == "print":
            os.write(1, b"noise on stdout\n")
            print("more noise")
        self._steps += 1
        won = action == "win"
        return f"{self._task.id}:{self._steps}:{action}", 10.0 * won, won, False, self._info(won)

    def _info(self, won: bool) -> StepInfo:
        return StepInfo(
            task_id=self._task.id,
            task_type="toy",
            task_description=str(os.getpid()),
            admissible_actions=["win"],
            won=won,
            step=self._steps,
        )


class ToyFamily(EnvFamily):
    name = "toy"
    task_types = ("toy",)

    def tasks(self, config: Mapping[str, Any], split: str) -> list[TaskRef]:
        if split == "broken":
            raise KeyError("a mistake in an environment")
        return [TaskRef(str(number), "toy", split) for number in range(4)]

    def make_env(self, config: Mapping[str, Any]) -> TextEnv:
        if config.get("broken"):
            raise EnvError("toy is broken on purpose")
        if config.get("away"):
            raise EnvUnreachable("toy's engine is away")
        if config.get("off") and os.path.exists(config["off"]):  # a file: nothing can be made while it is there
            raise EnvError("toy is switched off")
        marker = config.get("break_after")  # a file: the first process that sees it absent creates it and works
        if marker and os.path.exists(marker):
            raise EnvError("toy broke meanwhile")
        if marker:
            open(marker, "w").close()
        return ToyEnv()

    def make_format(self, config: Mapping[str, Any]):
        raise NotImplementedError("the pool needs no prompts")


FAMILY = ToyFamily()
