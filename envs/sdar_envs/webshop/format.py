"""WebShop's prompt template and action parser.

The fields of a prompt are those of the verl-agent contract, so that success rates can be compared: the task, the number
of steps taken, a window of past observations and actions, the current observation (what follows the task on the page,
each text in quotes) and the admissible actions, one a line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sdar_envs.base import EnvError, EpisodeView, ParsedAction, PromptFormat
from sdar_envs.webshop.env import SEARCH_ACTION
from sdar_envs.webshop.pages import SEPARATOR

_OPEN, _CLOSE = "<action>", "</action>"
_FALLBACK_CHARS = 20
_LONGEST = 13_000  # characters of a prompt with history; a longer one is made without
_CHINESE = re.compile("[\u4e00-\u9fff]")
_SEARCH = re.compile(r"search\[.+\]")

_INTRO = "You shop in an online store that is shown as text. Find and buy the product that the task describes."
_WITH_THINKING = (
    "First reason about what to do next inside <think> </think>. "
    "Then write one of the admissible actions inside <action> </action>."
)
_WITHOUT_THINKING = "Answer with one of the admissible actions inside <action> </action> and nothing else."


@dataclass(frozen=True)
class WebshopFormat(PromptFormat):
    """Renders an `EpisodeView` and reads the action back out of the model's answer.

    Attributes:
        thinking: True asks for ``<think>..</think><action>..</action>`` and calls an answer without both think tags
            invalid; False asks for the action alone and ignores think tags.
        history_length: how many past (observation, action) pairs later prompts show; 0 shows none.
        require_admissible: True also calls an action invalid that the page does not offer. Off by default: the
            contract lets such an action through, and the shop shows the same page again.
        instructions: False leaves out what to do and how to answer, for models fitted to play without being told; it
            goes with `thinking` off.
        history_pages: False shows earlier actions without the pages on which they were taken; prompts are shorter by
            a page for each.

    Raises:
        EnvError: `history_length` is negative, or two settings contradict each other.
    """

    thinking: bool = True
    history_length: int = 2
    require_admissible: bool = False
    instructions: bool = True
    history_pages: bool = True

    def __post_init__(self) -> None:
        if self.history_length < 0:
            raise EnvError(f"history_length is {self.history_length}; set it to 0 (no history) or more")
        if self.thinking and not self.instructions:
            raise EnvError("without instructions nothing asks for thinking: set thinking to false as well")

    def render(self, view: EpisodeView) -> str:
        """The user message for the current step; `view.history` holds every earlier step of the episode."""
        if view.history and self.history_length > 0:
            text = self._text(view, self._history(view))
            if len(text) <= _LONGEST:
                return text
        return self._text(view, [])

    def _text(self, view: EpisodeView, history: list[str]) -> str:
        actions = "\n".join(f"'{action}'," for action in view.admissible_actions)
        parts = [
            f"Task: {view.task_description}",
            *history,
            f"Observation: {quoted(view.observation, view.task_description)}",
            f"Admissible actions:\n{actions}",
        ]
        if self.instructions:
            parts = [_INTRO, *parts, _WITH_THINKING if self.thinking else _WITHOUT_THINKING]
        return "\n".join(parts)

    def _history(self, view: EpisodeView) -> list[str]:
        taken = len(view.history)
        shown = view.history[max(0, taken - self.history_length) :]
        lines = [f"Steps taken: {taken}. The last {len(shown)}:"]
        for number, (observation, action) in enumerate(shown, taken - len(shown) + 1):
            page = ""
            if self.history_pages:
                page = f"Observation {number}: '{quoted(observation, view.task_description)}', "
            lines.append(f"[{page}Action {number}: '{action}']")
        return [*lines, f"You are at step {taken + 1}."]

    def parse(self, text: str, admissible_actions: Sequence[str]) -> ParsedAction:
        """Read the action out of `text`; never raises.

        The action is the lower-cased text between the first ``<action>`` and the first ``</action>``. Where a tag is
        missing, the last 20 characters are played and the answer counts as invalid.
        """
        lowered = text.lower()
        start, end = lowered.find(_OPEN), lowered.find(_CLOSE)
        if start < 0 or end < 0:
            return ParsedAction(lowered[-_FALLBACK_CHARS:], False, "no <action>..</action>")
        action = lowered[start + len(_OPEN) : end].strip()
        return ParsedAction(action, *self._judge(text, action, admissible_actions))

    def _judge(self, text: str, action: str, admissible_actions: Sequence[str]) -> tuple[bool, str]:
        if self.thinking and not ("<think>" in text and "</think>" in text):
            return False, "no <think>..</think>"
        if _CHINESE.search(text):
            return False, "Chinese characters"
        if self.require_admissible and not _is_admissible(action, admissible_actions):
            return False, "not an admissible action"
        return True, ""


def quoted(observation: str, task: str) -> str:
    """The page's texts behind the task, each in quotes; the whole page where the task is not on it."""
    texts = observation.split(SEPARATOR)
    if task not in texts:
        return observation
    return SEPARATOR.join(f"'{text}'" for text in texts[texts.index(task) + 1 :])


def _is_admissible(action: str, admissible_actions: Sequence[str]) -> bool:
    return action in admissible_actions or (SEARCH_ACTION in admissible_actions and bool(_SEARCH.fullmatch(action)))
