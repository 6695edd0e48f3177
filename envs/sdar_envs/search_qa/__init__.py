"""Search-QA: questions answered with the help of a search engine, exact match on the last answer.

Importing this package is light; engines and parquet readers are imported when they are used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sdar_envs.base import EnvError, PromptFormat, TaskRef, TextEnv
from sdar_envs.registry import EnvFamily
from sdar_envs.search_qa.question_types import TASK_TYPES
from sdar_envs.search_qa.questions import find_tasks, question_of

if TYPE_CHECKING:
    from sdar_envs.search_qa.retrievers.base import Retriever

_DEFAULTS: dict[str, Any] = {
    "data_root": None,
    "splits": None,  # which split trains and which validates: read by the trainer
    "retriever": None,
    "topk": 3,
    "max_steps": 4,
    "history_length": 4,
    "thinking": True,
    "require_think": False,
    "instructions": True,
    "success_reward": 1.0,
    "task_types": None,
    "sources": None,
}


@lru_cache(maxsize=2)
def _shared_retriever(config: str) -> Retriever:
    """One engine for all environments of a process; they are used one after the other."""
    from sdar_envs.search_qa.retrievers import open_retriever

    return open_retriever(json.loads(config))


class SearchQaFamily(EnvFamily):
    """Search-QA by configuration: `data_root`, `retriever`, `topk`, `max_steps`, `history_length`, `thinking`,
    `require_think`, `instructions`, `success_reward`, `task_types` and `sources`; unknown keys are refused."""

    name = "search_qa"
    task_types = TASK_TYPES
    defaults = _DEFAULTS
    own_keys = (
        "data_root", "splits", "retriever", "task_types", "sources", "history_length", "thinking", "require_think",
        "instructions",
    )  # fmt: skip

    def tasks(self, config: Mapping[str, Any], split: str) -> list[TaskRef]:
        settings = self.settings(config)
        if settings["data_root"] is None:
            raise EnvError("env.search_qa.data_root is not set: name the folder that holds <split>.parquet")
        return find_tasks(settings["data_root"], split, settings["task_types"], settings["sources"])

    def make_env(self, config: Mapping[str, Any]) -> TextEnv:
        from sdar_envs.search_qa.env import SearchQaEnv

        settings = self.settings(config)
        if not isinstance(settings["retriever"], Mapping):
            raise EnvError(
                "env.search_qa.retriever is not set: choose an engine, for example {engine: bm25s, index: <folder>} or "
                "{engine: http, url: http://127.0.0.1:8000/retrieve}"
            )
        retriever = {key: value for key, value in settings["retriever"].items() if value is not None}
        return SearchQaEnv(
            _shared_retriever(json.dumps(retriever, sort_keys=True)),
            question_of,
            topk=settings["topk"],
            max_steps=settings["max_steps"],
            success_reward=settings["success_reward"],
        )

    def make_format(self, config: Mapping[str, Any]) -> PromptFormat:
        from sdar_envs.search_qa.format import SearchQaFormat

        settings = self.settings(config)
        return SearchQaFormat(
            thinking=settings["thinking"],
            history_length=settings["history_length"],
            require_think=settings["require_think"],
            instructions=settings["instructions"],
        )

    def reference(self, config: Mapping[str, Any], task: TaskRef) -> list[str]:
        """The searches that the data name, if any, then the first accepted answer."""
        question = question_of(task)
        return [f"<search>{step}</search>" for step in question.steps] + [f"<answer>{question.targets[0]}</answer>"]


FAMILY = SearchQaFamily()
