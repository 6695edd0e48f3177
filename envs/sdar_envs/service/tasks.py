"""The tasks of a service by split and id; clients name tasks and never paths."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from sdar_envs.base import EnvError, TaskRef
from sdar_envs.registry import EnvFamily
from sdar_envs.service.protocol import LIMIT, UNKNOWN_TASK, Refusal, task_digest

_MOST_SPLITS = 32  # kept in memory: their names come from outside


class TaskIndex:
    """Reads each split once, at its first use, in a thread."""

    def __init__(self, family: EnvFamily, config: Mapping[str, Any]) -> None:
        self._family, self._config = family, dict(config)
        self._splits: dict[str, dict[str, TaskRef]] = {}
        self._digests: dict[str, dict[str, Any]] = {}
        self._reading = asyncio.Lock()

    async def find(self, split: str, task_id: str) -> TaskRef:
        """The task; `Refusal` if this service has none of that name."""
        tasks = await self._split(split)
        if task_id not in tasks:
            raise Refusal(
                UNKNOWN_TASK,
                f"this service has no task {task_id!r} among the {len(tasks)} of split {split!r}; give it the data "
                "that the trainer reads its tasks from",
            )
        return tasks[task_id]

    async def digest(self, split: str) -> dict[str, Any]:
        """See `protocol.task_digest`."""
        tasks = await self._split(split)
        if split not in self._digests:
            self._digests[split] = await asyncio.to_thread(task_digest, tasks.values())
        return self._digests[split]

    async def _split(self, split: str) -> dict[str, TaskRef]:
        async with self._reading:
            if split not in self._splits:
                if len(self._splits) >= _MOST_SPLITS:
                    raise Refusal(LIMIT, f"more than {_MOST_SPLITS} splits were asked for")
                try:
                    tasks = await asyncio.to_thread(self._family.tasks, self._config, split)
                except EnvError as error:
                    raise Refusal(UNKNOWN_TASK, f"split {split!r}: {error}") from error
                self._splits[split] = {task.id: task for task in tasks}
            return self._splits[split]
