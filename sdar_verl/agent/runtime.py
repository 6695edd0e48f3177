"""What one agent-loop process holds for all its episodes: environments, skills, teacher prompts, the record file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdar_envs import registry
from sdar_envs.base import TaskRef

from sdar_verl.agent.conversation import Extend, Messages, StepConversation, TrajectoryConversation
from sdar_verl.agent.episode import Actor, EpisodeId, Generate, Limits, play_episode
from sdar_verl.agent.pools import make_pool
from sdar_verl.agent.privileged import privileged_parts
from sdar_verl.agent.rows import PlayedEpisode
from sdar_verl.evaluation.jsonl import JsonlWriter
from sdar_verl.settings import Settings
from sdar_verl.skills import Skill, SkillStore
from sdar_verl.teacher import TeacherPrompt
from sdar_verl.teacher.contexts import Situation
from sdar_verl.teacher.templating import prompt_ids


class EpisodeRuntime:
    """Plays episodes for one process; build it once, close it at the end.

    Args:
        settings: of the run.
        tokenizer: the student's.
        template_kwargs: for the chat template, the same for student and teacher.
        limits: token limits.
        skills: of the run; None opens the configured store.

    Attributes:
        scores_in_rollout: the rollout engine scores the teacher's prompts when an episode ends.
        error: the first exception of an episode that its environment is not to blame for; None if there was none.
        lost: training step to how many of its episodes had an environment that failed.
    """

    def __init__(
        self,
        settings: Settings,
        tokenizer: Any,
        template_kwargs: Mapping[str, Any],
        limits: Limits,
        skills: SkillStore | None = None,
    ):
        self.settings, self.tokenizer, self.template_kwargs, self.limits = settings, tokenizer, template_kwargs, limits
        env = settings.env
        self.format = registry.get(env.name).make_format(env.config)
        self.pool = make_pool(env)
        self.error: Exception | None = None
        self.lost: Counter[int] = Counter()
        self.privileged = privileged_parts(settings, tokenizer, template_kwargs, limits.prompt, skills)
        folder = Path(settings.run_dir) / "episodes"
        self.scores_in_rollout = settings.distillation is not None and settings.teacher.placement == "rollout"
        self._records = {split: JsonlWriter(folder / f"{split}.jsonl") for split in ("train", "val")}

    async def play(self, task: TaskRef, who: EpisodeId, generate: Generate, extend: Extend) -> PlayedEpisode:
        """Play one episode in the next free environment and write its record.

        One whose environment failed has no rows to train on.
        """
        learns = who.split == "train" and self.privileged.teacher is not None
        shown = self.settings.skills.student == "always" or (
            self.settings.skills.student == "train" and who.split == "train"
        )
        waits = learns and self.privileged.context.needs_group
        skills: list[Skill] = []

        def retrieve(text: str) -> list[Skill]:
            if shown or (learns and not waits):
                situation = Situation(self.settings.env.name, task, seed=who.session, step=who.step, text=text)
                skills.extend(self.privileged.context.units(situation))
            return skills

        def build(messages: Messages) -> TeacherPrompt:
            if shown:
                return self.privileged.student.build(messages, skills, task_type=task.task_type)
            return TeacherPrompt(prompt_ids(self.tokenizer, messages, self.template_kwargs), kept=[], dropped=[])

        def conversation():
            if self.settings.rows == "step":
                return StepConversation(build, self.format)
            return TrajectoryConversation(build, self.format, extend)

        actor = Actor(
            tokenizer=self.tokenizer,
            format=self.format,
            conversation=conversation,
            teacher=self.privileged.teacher if learns and not waits else None,
            waits=waits,
            limits=self.limits,
            invalid_action_penalty=self.settings.env.invalid_action_penalty,
        )
        async with self.pool.session() as env:
            played = await play_episode(actor, env, task, retrieve, who, generate)
        self._records[who.split].write(played.record)
        if played.broken and who.split == "train":
            self.lost[who.step] += 1
            played.rows.clear()  # else they would be trained on as those of the worst episode of their group
        return played

    async def close(self) -> None:
        """Stop the environment workers and close the record files."""
        for writer in self._records.values():
            writer.close()
        await self.pool.close()
