"""The teacher's prompt: the student's conversation with skills put into it, never cut, never reworded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdar_verl.skills.skill import Skill
from sdar_verl.teacher import placements
from sdar_verl.teacher.errors import TeacherContextError, TeacherPromptTooLong
from sdar_verl.teacher.templating import Messages, check_template_kwargs, prompt_ids

HEADING = "Skills for this task:"
OVERFLOW = ("raise", "shrink")
REMEMBERED = 10_000  # lengths of skills kept at most


@dataclass(frozen=True)
class TeacherPrompt:
    """One privileged prompt.

    Attributes:
        ids: token ids, up to the place where the response begins.
        kept: the skills that are in the prompt, in its order.
        dropped: the skills left out to make it fit, in the order in which they went.
    """

    ids: list[int]
    kept: list[Skill]
    dropped: list[Skill]


class TeacherPromptBuilder:
    """Builds privileged prompts with the student's tokenizer and chat template.

    Args:
        tokenizer: the student's transformers tokenizer, with a chat template.
        placement: ``system``, ``user_prefix`` or ``before_template``; see `sdar_verl.teacher.placements`.
        max_prompt_length: most tokens a privileged prompt may have.
        chat_template_kwargs: the same as the student's, for example ``{"enable_thinking": False}``.
        heading: the line above the skills; empty for none.
        overflow: ``shrink`` leaves out whole skills (order below) until the prompt fits; ``raise`` never does.

    Order of leaving out: skills of other task types, then general ones, then the task's own; within each, the last
    retrieved goes first. A row that was given skills and can keep none raises: a teacher without any privileged
    context would teach nothing, and nobody would see it.

    Raises:
        TeacherContextError: an unknown placement, a tokenizer without chat template, a bad length, a template that
            does not take the placement.
    """

    def __init__(
        self,
        tokenizer: Any,
        placement: str = "system",
        max_prompt_length: int = 4096,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        *,
        heading: str = HEADING,
        overflow: str = "shrink",
    ):
        if not getattr(tokenizer, "chat_template", None):
            raise TeacherContextError("the tokenizer has no chat template; use an instruct model, or set one")
        if isinstance(max_prompt_length, bool) or not isinstance(max_prompt_length, int) or max_prompt_length < 1:
            raise TeacherContextError(f"max_prompt_length must be a whole number from 1, got {max_prompt_length!r}")
        if overflow not in OVERFLOW:
            raise TeacherContextError(f"unknown overflow {overflow!r}; known: {', '.join(OVERFLOW)}")
        self.tokenizer = tokenizer
        self.max_prompt_length = max_prompt_length
        self.overflow = overflow
        self.heading = heading.strip()
        self._kwargs = check_template_kwargs(chat_template_kwargs or {})
        self._placement = placements.make(placement, tokenizer, self._kwargs)
        self._special = _special_tokens(tokenizer)
        self._lengths: dict[str, int] = {}
        self._refuse_special(self.heading, "the heading")

    @property
    def placement(self) -> str:
        return self._placement.name

    def build(self, messages: Messages, skills: Sequence[Skill], *, task_type: str | None = None) -> TeacherPrompt:
        """The privileged prompt for one row.

        Args:
            messages: the student's conversation up to this row's response; it is not changed.
            skills: what the retriever gave, in order. Empty gives exactly the student's prompt ids.
            task_type: the row's own task type, which decides what may be left out first; None counts every
                task-specific skill as the task's own.

        Raises:
            TeacherPromptTooLong: it cannot fit; the message holds the lengths.
            TeacherContextError: a skill holds one of the tokenizer's special tokens, or the conversation does not fit
                the placement.
        """
        order = _drop_order(skills, task_type)
        ids = self._ids(messages, skills)
        if len(ids) <= self.max_prompt_length:
            return TeacherPrompt(ids, list(skills), [])
        if self.overflow == "raise" or len(skills) <= 1:
            raise TeacherPromptTooLong(self._too_long(messages, skills, skills, len(ids)))
        built = {0: ids}

        def fits(count: int) -> bool:
            if count not in built:
                built[count] = self._ids(messages, _without(skills, order[:count]))
            return len(built[count]) <= self.max_prompt_length

        most = len(skills) - 1
        count = self._guess(order[:most], len(ids) - self.max_prompt_length)
        while not fits(count):
            if count == most:
                kept = _without(skills, order[:most])
                raise TeacherPromptTooLong(self._too_long(messages, skills, kept, len(built[most])))
            count += 1
        while fits(count - 1):
            count -= 1
        return TeacherPrompt(built[count], _without(skills, order[:count]), order[:count])

    def _guess(self, order: Sequence[Skill], excess: int) -> int:
        """About how many of `order` must go to save `excess` tokens; building decides."""
        for count, skill in enumerate(order, start=1):
            excess -= self._length(skill)
            if excess <= 0:
                return count
        return len(order)

    def _length(self, skill: Skill) -> int:
        """About how many tokens `skill` takes; remembered, since skills are few and come again."""
        found = self._lengths.get(skill.content_hash)
        if found is None:
            found = len(self.tokenizer.encode(skill.text, add_special_tokens=False))
            if len(self._lengths) < REMEMBERED:  # texts of this run's own episodes come once and without end
                self._lengths[skill.content_hash] = found
        return found

    def privileged_text(self, skills: Sequence[Skill]) -> str:
        """Heading and skills as the teacher reads them, joined by blank lines; plain concatenation, no formatting."""
        for skill in skills:
            self._refuse_special(skill.text, f"skill {skill.id!r}")
        return "\n\n".join(([self.heading] if self.heading else []) + [skill.text for skill in skills])

    def accepts(self, text: str) -> bool:
        """Whether `text` holds none of the tokenizer's special tokens, which could open a turn of their own."""
        return not any(token in text for token in self._special)

    def _ids(self, messages: Messages, skills: Sequence[Skill]) -> list[int]:
        if not skills:
            return prompt_ids(self.tokenizer, messages, self._kwargs)
        return self._placement.ids(messages, self.privileged_text(skills))

    def _refuse_special(self, text: str, what: str) -> None:
        if not self.accepts(text):
            found = min(token for token in self._special if token in text)
            raise TeacherContextError(
                f"{what} holds the tokenizer's special token {found!r}, which could open a turn; remove it"
            )

    def _too_long(self, messages: Messages, skills: Sequence[Skill], kept: Sequence[Skill], length: int) -> str:
        student = len(prompt_ids(self.tokenizer, messages, self._kwargs))
        if not skills:
            return (
                f"the student's own prompt has {student} tokens, the limit is {self.max_prompt_length}; "
                "make it at least data.max_prompt_length"
            )
        names = ", ".join(skill.id for skill in kept)
        return (
            f"the privileged prompt has {length} tokens with {names} and {student} without any skill, "
            f"the limit is {self.max_prompt_length}; raise it (sdar.teacher.max_prompt_length, or "
            "data.max_prompt_length where the student is shown skills) or shorten the skills"
        )


def _without(skills: Sequence[Skill], out: Sequence[Skill]) -> list[Skill]:
    kept = list(skills)
    for skill in out:
        kept.remove(skill)
    return kept


def _drop_order(skills: Sequence[Skill], task_type: str | None) -> list[Skill]:
    def rank(skill: Skill) -> int:
        if skill.is_general:
            return 1
        return 2 if task_type is None or skill.task_type == task_type else 0

    return sorted(reversed(skills), key=rank)


def _special_tokens(tokenizer: Any) -> set[str]:
    """Texts that the tokenizer turns into one special token wherever they stand."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return {token for token in added | set(tokenizer.all_special_tokens) if token.strip()}
