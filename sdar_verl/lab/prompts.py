"""What the lab's model reads: the trainer's own prompt format, chat template and privileged-prompt builder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from sdar_envs.base import EpisodeView, PromptFormat, TaskRef

from sdar_verl.errors import ConfigError
from sdar_verl.skills import Skill, SkillQuery, SkillStore, retrievers
from sdar_verl.teacher.context import TeacherPromptBuilder

TAGS = ("<think>", "</think>", "<action>", "</action>")  # of answers in most environments
CONDITIONS = {"right": "rules", "none": "none", "wrong": "wrong_task"}  # condition of the lab -> retriever


class SkillShelf:
    """The skills a prompt gets under each of the lab's conditions: ``right``, ``none`` and ``wrong``."""

    def __init__(self, store: SkillStore, env: str) -> None:
        self._env = env
        self._retrievers = {name: retrievers.make(retriever, store) for name, retriever in CONDITIONS.items()}

    def skills(self, condition: str, task: TaskRef, seed: int = 0) -> list[Skill]:
        """The skills for `task` under `condition`; `seed` moves the draw of a wrong one."""
        query = SkillQuery(env=self._env, task_type=task.task_type, task_id=task.id, seed=seed)
        return self._retrievers[condition].retrieve(query)


def messages(prompt_format: PromptFormat, view: EpisodeView) -> list[dict[str, str]]:
    """The student's messages for one step: a single user message."""
    return [{"role": "user", "content": prompt_format.render(view)}]


class Prompts:
    """Token ids of prompts with skills, by the very builder that makes a teacher's prompt in training.

    Args:
        tokenizer: the model's.
        positions: longest prompt with its answer that the model takes, in tokens.
        answer: longest answer, in tokens.
    """

    def __init__(self, tokenizer: Any, positions: int, answer: int) -> None:
        self._room, self._positions, self._answer = positions - answer, positions, answer
        self._builder = TeacherPromptBuilder(tokenizer, "system", sys.maxsize)

    def ids(self, said: list[dict[str, str]], skills: Sequence[Skill]) -> list[int]:
        """The prompt of the conversation `said`; raises `ConfigError` where the model cannot take it."""
        ids = self._builder.build(said, list(skills)).ids
        if len(ids) > self._room:
            raise ConfigError(
                f"a prompt of {len(ids)} tokens is too long: the model has {self._positions} positions, of which "
                f"{self._answer} are for the answer. Fit one with more (sdar lab fit --set max_positions=N), or with "
                "shorter prompts (--set history_length=N)"
            )
        return ids
