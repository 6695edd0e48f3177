"""How an episode is laid out in tokens: one row a turn, or one row an episode."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sdar_envs.base import EpisodeView, PromptFormat

from sdar_verl.agent.rows import Generation, Row
from sdar_verl.teacher import TeacherPrompt, TeacherPromptTooLong

if TYPE_CHECKING:
    from sdar_verl.agent.episode import Limits

Messages = list[dict[str, str]]
Extend = Callable[[Messages, Messages, list[int]], list[int]]
BuildPrompt = Callable[[Messages], TeacherPrompt]


@dataclass(frozen=True)
class Request:
    """What to generate from; `too_long` says why nothing can be generated any more, or is empty."""

    context_ids: list[int]
    max_tokens: int
    too_long: str = ""


class Conversation(ABC):
    """The tokens of one episode so far.

    Args:
        build: from the first messages to the student's prompt, which may hold skills as a teacher's does.
        prompt_format: renders what the student is shown.

    Attributes:
        shown: the prompt of the current row.
    """

    shown: TeacherPrompt

    def __init__(self, build: BuildPrompt, prompt_format: PromptFormat):
        self.build, self.format = build, prompt_format

    def _open(self) -> str:
        """Make the prompt of a new row from `_messages`; says why none can be made, or nothing."""
        try:
            self.shown = self.build(self._messages)
        except TeacherPromptTooLong as error:  # skills in the student's prompt
            return str(error)
        self._ids = self.shown.ids
        return ""

    @abstractmethod
    def next_request(self, view: EpisodeView, limits: Limits) -> Request:
        """The context of the next answer, its length checked."""

    @abstractmethod
    def add_answer(self, answer: Generation, text: str) -> Row | None:
        """Take the answer in; returns the row that begins with it, None if it joins the row before."""

    @abstractmethod
    def prompt_messages(self) -> Messages:
        """The messages before the current row's response: what a privileged prompt is made from."""


def _check(prompt_tokens: int, used: int, limits: Limits) -> tuple[int, str]:
    """Tokens left for an answer after `used` response tokens, and why there are none."""
    if prompt_tokens > limits.prompt:
        return 0, (
            f"a prompt of {prompt_tokens} tokens exceeds data.max_prompt_length={limits.prompt}; raise it, or lower "
            "the history length"
        )
    left = limits.response - used
    if limits.turn is not None:
        left = min(left, limits.turn)
    return left, "" if left > 0 else f"the episode used up data.max_response_length={limits.response}"


class StepConversation(Conversation):
    """Each turn is a conversation of its own (the verl-agent way): the prompt carries a window of the history."""

    def next_request(self, view: EpisodeView, limits: Limits) -> Request:
        self._messages: Messages = [{"role": "user", "content": self.format.render(view)}]
        if problem := self._open():
            return Request([], 0, problem)
        left, problem = _check(len(self._ids), 0, limits)
        return Request(self._ids, left, problem)

    def add_answer(self, answer: Generation, text: str) -> Row:
        return Row(
            prompt_ids=self._ids,
            response_ids=list(answer.token_ids),
            response_mask=[1] * len(answer.token_ids),
            log_probs=answer.log_probs,
            weights_steps=[] if answer.weights_step is None else [answer.weights_step],
        )

    def prompt_messages(self) -> Messages:
        return self._messages


class TrajectoryConversation(Conversation):
    """One conversation for the whole episode; observations stand in the response with mask 0.

    `extend(before, after, ids)` gives `ids` plus the tokens of the messages that `after` has and `before` has not; the
    ids already there stay as they are.
    """

    def __init__(self, build: BuildPrompt, prompt_format: PromptFormat, extend: Extend):
        super().__init__(build, prompt_format)
        self._extend = extend
        self._messages: Messages = []
        self._row: Row | None = None

    def next_request(self, view: EpisodeView, limits: Limits) -> Request:
        # What was said before is in the context already: render the view as if it had no history.
        message = {"role": "user", "content": self.format.render(replace(view, history=[]))}
        if self._row is None:
            self._messages = [message]
            if problem := self._open():
                return Request([], 0, problem)
            self._prompt = len(self._ids)
        else:
            before = self._messages
            self._messages = [*before, message]
            self._ids = self._extend(before, self._messages, self._ids)
        left, problem = _check(self._prompt, len(self._ids) - self._prompt, limits)
        return Request(self._ids, left, problem)

    def add_answer(self, answer: Generation, text: str) -> Row | None:
        self._messages = [*self._messages, {"role": "assistant", "content": text}]
        first = self._row is None
        if first:
            log_probs: list[float] | None = None if answer.log_probs is None else []
            self._row = Row(self._ids[: self._prompt], [], [], log_probs)
        row = self._row
        observed = self._ids[self._prompt + len(row.response_ids) :]
        row.response_ids += [*observed, *answer.token_ids]
        row.response_mask += [0] * len(observed) + [1] * len(answer.token_ids)
        if row.log_probs is not None:
            row.log_probs += [0.0] * len(observed) + list(answer.log_probs or [])
        if answer.weights_step is not None:
            row.weights_steps.append(answer.weights_step)
        self._ids = [*self._ids, *answer.token_ids]
        return row if first else None

    def prompt_messages(self) -> Messages:
        return self._messages[:1]
