"""What a run shows its teacher, or its student, beside the task; and the teacher's prompts made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdar_envs import registry
from sdar_envs.base import TaskRef

from sdar_verl.errors import ConfigError
from sdar_verl.run_skills import first_skills
from sdar_verl.settings import Settings
from sdar_verl.skills import SkillStore
from sdar_verl.skills.coverage import has_task_skill
from sdar_verl.skills.retrievers import RetrieverOptions
from sdar_verl.skills.retrievers import make as make_retriever
from sdar_verl.skills.skill import Skill, canonical_text, text_problem
from sdar_verl.teacher import TeacherPrompt, TeacherPromptBuilder, TeacherPromptTooLong
from sdar_verl.teacher.context import HEADING
from sdar_verl.teacher.contexts import (
    CONTEXTS,
    CombinedContext,
    Context,
    DemonstrationContext,
    FeedbackContext,
    ReferenceContext,
    Situation,
    SkillsContext,
    Success,
    Transcript,
    part_of,
)
from sdar_verl.teacher.templating import Messages


@dataclass(frozen=True)
class TeacherRow:
    """What the teacher is given for one training row.

    Attributes:
        ids: the privileged prompt's token ids.
        units: ids of the texts that the prompt holds.
        task_skill: whether one of its units is of the row's own task type; `shrunk`: whether units were left out.
        taught: False where there was nothing to show: the row's tokens are not distilled.
    """

    ids: list[int]
    units: tuple[str, ...]
    task_skill: bool
    shrunk: bool
    taught: bool

    @property
    def parts(self) -> set[str]:
        """Names of the contexts that the prompt holds something of."""
        return {part_of(unit) for unit in self.units}


@dataclass(frozen=True)
class GroupRow:
    """A row whose privileged prompt had to wait for its group.

    Attributes:
        messages: the student's conversation up to the row's response.
        situation: its task and the attempts of its group.
    """

    messages: Messages
    situation: Situation


@dataclass(frozen=True)
class Privileged:
    """Attributes:
    context: texts for a row; None for plain RL.
    teacher: puts them into the teacher's prompts; None without distillation.
    student: puts them into the student's prompts; None where the student plays without skills.
    """

    context: CombinedContext | None
    teacher: TeacherPromptBuilder | None
    student: TeacherPromptBuilder | None

    def teacher_row(self, messages: Messages, situation: Situation) -> TeacherRow:
        """The privileged prompt of one row of a finished group.

        The student's own prompt where there is nothing to show, or (with ``overflow=shrink``) where not one unit fits:
        a single long conversation must not end a run whose lengths nobody can know beforehand.
        """
        task, units = situation.task, self.context.units(situation)
        try:
            prompt = self.teacher.build(messages, units, task_type=task.task_type)
        except TeacherPromptTooLong:
            if self.teacher.overflow == "raise":
                raise
            prompt = TeacherPrompt(self.teacher.build(messages, []).ids, kept=[], dropped=units)
        return teacher_row(prompt, task, taught=bool(prompt.kept))


def teacher_row(prompt: TeacherPrompt, task: TaskRef, *, taught: bool) -> TeacherRow:
    """What `prompt` is to training."""
    return TeacherRow(
        ids=prompt.ids,
        units=tuple(unit.id for unit in prompt.kept),
        task_skill=has_task_skill(own_skills(prompt), task.task_type),
        shrunk=bool(prompt.dropped),
        taught=taught,
    )


def own_skills(prompt: TeacherPrompt) -> list[Skill]:
    """The skills in `prompt`; other contexts' texts are none."""
    return [unit for unit in prompt.kept if part_of(unit.id) == SkillsContext.name]


def privileged_parts(
    settings: Settings,
    tokenizer: Any,
    template_kwargs: Mapping[str, Any],
    prompt_limit: int,
    skills: SkillStore | None = None,
) -> Privileged:
    """What `settings` ask for.

    Args:
        prompt_limit: most tokens of a student's prompt.
        skills: of the run; None opens the configured store.
    """
    teacher = settings.teacher

    def builder(limit: int, heading: str) -> TeacherPromptBuilder:
        return TeacherPromptBuilder(
            tokenizer,
            teacher.prompt_placement,
            limit,
            template_kwargs,
            heading=heading,
            overflow=teacher.overflow,
        )

    if settings.distillation is None:
        if settings.skills.student == "none":
            return Privileged(None, None, None)
        context = CombinedContext([_skills(settings, skills)], feedback_only_without_solution=True)
        return Privileged(context, None, builder(prompt_limit, HEADING))
    heading = HEADING if SkillsContext.name in settings.context.parts else ""
    built = builder(teacher.max_prompt_length, heading)
    chosen = settings.context
    parts = [_part(name, settings, built, skills) for name in CONTEXTS if name in chosen.parts]
    context = CombinedContext(parts, feedback_only_without_solution=chosen.environment_feedback_only_without_solution)
    return Privileged(context, built, None)


def _skills(settings: Settings, store: SkillStore | None) -> SkillsContext:
    chosen = settings.skills
    store = first_skills(settings) if store is None else store
    options = RetrieverOptions(
        run_dir=Path(settings.run_dir),
        ucb_c=chosen.ucb.c,
        semantic_model=chosen.semantic.model,
        semantic_skills=chosen.semantic.skills,
    )
    return SkillsContext(
        make_retriever(chosen.retriever, store, allow_missing=chosen.allow_missing, seed=chosen.seed, options=options)
    )


def _part(name: str, settings: Settings, builder: TeacherPromptBuilder, skills: SkillStore | None) -> Context:
    if name == SkillsContext.name:
        return _skills(settings, skills)
    if name == ReferenceContext.name:
        family, config = registry.get(settings.env.name), settings.env.config
        return ReferenceContext(lambda task: family.reference(config, task))
    success = Success(settings.context.success_reward_threshold)
    transcript = Transcript(lambda text: text_problem(canonical_text(text)) is None and builder.accepts(text))
    if name == FeedbackContext.name:
        return FeedbackContext(success, transcript)
    if name == DemonstrationContext.name:
        remove = settings.context.remove_thinking_from_demonstration
        return DemonstrationContext(success, transcript, remove_thinking=remove)
    raise ConfigError(f"the context {name!r} is known but cannot be built here; this is a bug, please report it")


def group_rows(privileged: Privileged, rows: Sequence[GroupRow]) -> list[TeacherRow]:
    """The teacher's rows of finished groups, in order."""
    return [privileged.teacher_row(row.messages, row.situation) for row in rows]
