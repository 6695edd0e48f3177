"""Search-QA's prompt template and action parser.

The fields of a prompt are those of the verl-agent contract: the question; from the second turn on also the number of
steps taken and the history, one ``Step N:<search>..</search> <information>..</information>`` a step.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sdar_envs.base import EnvError, EpisodeView, ParsedAction, PromptFormat

_SEARCH = re.compile(r"<search>(.*?)</search>", re.IGNORECASE | re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
_SEARCH_TAG = re.compile(r"<search>", re.IGNORECASE)
_ANSWER_TAG = re.compile(r"<answer>", re.IGNORECASE)

_INTRO = "You answer a question with the help of a search engine."
_THINK = "First reason about what you know and what is missing inside <think> </think>. Then do one of these, not both:"
_NO_THINK = "Do one of these, not both, and write nothing else:"
_CHOICES = (
    "- If something is missing: <search> a query </search>. The best passages come back inside "
    "<information> </information>.\n"
    "- If you know the answer: <answer> the answer </answer>, as short as possible and without explanation, "
    "for example <answer> Lisbon </answer>."
)


@dataclass(frozen=True)
class SearchQaFormat(PromptFormat):
    """Renders an `EpisodeView` and reads the action back out of the model's answer.

    Attributes:
        thinking: True asks for ``<think>..</think>`` before the action.
        history_length: how many past steps later prompts show; 0 shows none.
        require_think: True also calls an answer without both think tags invalid. Off by default, as in the contract.
        instructions: False shows the question and the history alone, for models fitted to play from these; it goes with
            `thinking` off.

    Raises:
        EnvError: `history_length` is negative, or two settings contradict each other.
    """

    thinking: bool = True
    history_length: int = 4
    require_think: bool = False
    instructions: bool = True

    def __post_init__(self) -> None:
        if self.history_length < 0:
            raise EnvError(f"history_length is {self.history_length}; set it to 0 (no history) or more")
        if self.require_think and not self.thinking:
            raise EnvError("require_think needs thinking: the prompt would not ask for what is required")
        if self.thinking and not self.instructions:
            raise EnvError("without instructions nothing asks for thinking: set thinking to false as well")

    def render(self, view: EpisodeView) -> str:
        """The user message for the current step.

        A view without history shows the current observation by itself, as whole-trajectory rows need it.
        """
        parts = [f"Question: {view.task_description}"]
        if view.history and self.history_length:
            parts.append(f"Steps taken: {len(view.history)}. What you did and what came back:\n{self._memory(view)}")
        elif view.history:
            parts.append(f"Steps taken: {len(view.history)}.")
        elif view.observation != view.task_description:
            parts.append(f"What came back:\n{view.observation}")
        if self.instructions:
            parts = [_INTRO, *parts, _THINK if self.thinking else _NO_THINK, _CHOICES]
        return "\n".join(parts)

    def _memory(self, view: EpisodeView) -> str:
        """Each shown step with the observation that came after it."""
        after = [observation for observation, _ in view.history[1:]] + [view.observation]
        steps = [
            f"Step {number}:{action} {observation}"
            for number, ((_, action), observation) in enumerate(zip(view.history, after, strict=True), 1)
        ]
        return "\n".join(steps[-self.history_length :])

    def parse(self, text: str, admissible_actions: Sequence[str] = ()) -> ParsedAction:
        """Read the action out of `text`; never raises.

        The text is cut behind the first ``</search>``, or behind the first ``</answer>`` where there is no
        ``</search>``. What remains is played: its first search block, else its first answer block, else nothing (the
        empty action). Both kinds of tag, or one of them twice, are invalid but played all the same.
        """
        action = _action(text)
        return ParsedAction(action, *self._judge(text, action))

    def _judge(self, text: str, action: str) -> tuple[bool, str]:
        searches, answers = len(_SEARCH_TAG.findall(text)), len(_ANSWER_TAG.findall(text))
        if not action:
            return False, "neither <search>..</search> nor <answer>..</answer>"
        if searches and answers:
            return False, "both <search> and <answer>"
        if searches > 1 or answers > 1:
            return False, "more than one <search> or <answer>"
        if self.require_think and not ("<think>" in text and "</think>" in text):
            return False, "no <think>..</think>"
        return True, ""


def _action(text: str) -> str:
    for close in ("</search>", "</answer>"):  # lower case only, unlike the blocks below: the contract's own order
        if close in text:
            text = text.partition(close)[0] + close
            break
    if found := _SEARCH.search(text):
        return f"<search>{found[1].strip()}</search>"
    if found := _ANSWER.search(text):
        return f"<answer>{found[1].strip()}</answer>"
    return ""
