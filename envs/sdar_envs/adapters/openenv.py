"""Environments behind OpenEnv's server (extra `openenv`), for clients that speak its protocol.

::

    from sdar_envs.adapters.openenv import make_app
    app = make_app("alfworld", {"data_root": "games"}, splits=["train"], workers=2)   # uvicorn module:app

Episodes are played on the pool of worker processes. OpenEnv has no resuming of sessions, no repetition of lost answers
and no token: where those matter, use `sdar-env serve`. Written against openenv 0.10.0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

from sdar_envs import registry
from sdar_envs.base import EnvError, StepInfo, TaskRef
from sdar_envs.pool import EnvPool


class TextAction(Action):
    """One action, as text."""

    action: str


class TextObservation(Observation):
    """What an environment shows; `truncated` tells an episode that ran out of steps from one that came to its end."""

    text: str
    admissible_actions: list[str]
    task_id: str
    task_type: str
    task_description: str
    won: bool
    step: int
    truncated: bool = False


class PooledEnvironment(Environment[TextAction, TextObservation, State]):
    """One OpenEnv session, playing in one place of a shared pool.

    Args:
        pool: shared by all sessions; used from the server's event loop only.
        tasks: by split, in order.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, pool: EnvPool, tasks: Mapping[str, Sequence[TaskRef]]) -> None:
        super().__init__()
        self._tasks = tasks
        self._session = pool.session()
        self._state = State()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def reset_async(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        split: str | None = None,
        index: int = 0,
        task: str | None = None,
        **_: Any,
    ) -> TextObservation:
        """Start the task with the id `task`, else the one at `index` of its split (the first split by default)."""
        self._loop = asyncio.get_running_loop()
        tasks = self._tasks[self._known(split)]
        if task is not None:
            found = [candidate for candidate in tasks if candidate.id == task]
            if not found:
                raise EnvError(f"there is no task {task!r} among the {len(tasks)} of this split")
            chosen = found[0]
        else:
            chosen = self._at(tasks, index)
        observation, info = await self._session.reset(chosen, seed)
        self._state = State(episode_id=episode_id, step_count=0)
        return _shown(observation, info)

    async def step_async(self, action: TextAction, timeout_s: float | None = None, **_: Any) -> TextObservation:
        """Play one action; the deadline is the pool's, `timeout_s` is not read."""
        observation, reward, terminated, truncated, info = await self._session.step(action.action)
        self._state = State(episode_id=self._state.episode_id, step_count=info["step"])
        return _shown(observation, info, reward=reward, done=terminated or truncated, truncated=truncated)

    def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> TextObservation:
        raise EnvError("the pool needs an event loop: use reset_async, as OpenEnv's server does")

    def step(self, action: TextAction, timeout_s: float | None = None, **_: Any) -> TextObservation:
        raise EnvError("the pool needs an event loop: use step_async, as OpenEnv's server does")

    @property
    def state(self) -> State:
        return self._state

    def close(self) -> None:
        """Give the place back; the server calls this from a thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._session.leave)

    def list_splits(self) -> list[str]:
        return list(self._tasks)

    def num_tasks(self, split: str) -> int:
        return len(self._tasks[self._known(split)])

    def list_tasks(self, split: str) -> list[dict[str, Any]]:
        return [_spec(index, task) for index, task in enumerate(self._tasks[self._known(split)])]

    def get_task(self, split: str, index: int) -> dict[str, Any]:
        return _spec(index, self._at(self._tasks[self._known(split)], index))

    def get_task_range(self, split: str, start: int | None = None, stop: int | None = None) -> list[dict[str, Any]]:
        return self.list_tasks(split)[start:stop]

    def _known(self, split: str | None) -> str:
        name = next(iter(self._tasks)) if split is None else split
        if name not in self._tasks:
            raise EnvError(f"split {name!r} is not served here; known: {', '.join(self._tasks)}")
        return name

    @staticmethod
    def _at(tasks: Sequence[TaskRef], index: int) -> TaskRef:
        if not 0 <= index < len(tasks):
            raise IndexError(f"index {index} is outside the split's {len(tasks)} tasks")
        return tasks[index]


def make_app(
    family: str,
    config: Mapping[str, Any],
    splits: Sequence[str],
    workers: int = 2,
    envs_per_worker: int = 8,
    **deadlines: float,
) -> FastAPI:
    """OpenEnv's application for one environment; as many sessions at once as the pool has places.

    Args:
        family: name of a registered environment.
        config: its configuration.
        splits: whose tasks can be played; the first is the default.
        workers: worker processes; they start with the first episode and end with this process.
        envs_per_worker: episodes that one of them plays at once.
        deadlines: of `EnvPool`.

    Raises:
        EnvError: unknown environment, broken settings, a split without tasks.
    """
    if not splits:
        raise EnvError("name at least one split to serve")
    known = registry.get(family)
    tasks = {split: known.tasks(config, split) for split in splits}
    pool = EnvPool(family, config, workers=workers, envs_per_worker=envs_per_worker, **deadlines)
    return create_fastapi_app(
        lambda: PooledEnvironment(pool, tasks),
        TextAction,
        TextObservation,
        max_concurrent_envs=pool.places,
        env_name=family,
    )


def _spec(index: int, task: TaskRef) -> dict[str, Any]:
    return {"id": task.id, "index": index, "task_type": task.task_type}


def _shown(observation: str, info: StepInfo, **more: Any) -> TextObservation:
    names = ("admissible_actions", "task_id", "task_type", "task_description", "won", "step")
    return TextObservation(text=observation, **{name: info[name] for name in names}, **more)
