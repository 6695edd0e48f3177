"""What the lab's model reads: the trainer's own prompt format, chat template and privileged-prompt builder."""

from __future__ import annotations

from sdar_envs.base import EpisodeView, PromptFormat, TaskRef

from sdar_verl.skills import Skill, SkillQuery, SkillStore, retrievers

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
