"""ALFWorld's prompt template and action parser.

The fields of a prompt are those of the verl-agent contract, so that success rates can be compared: the first step shows
the observation (it holds the room and the task) and the admissible actions; later steps show the task, the number of
steps taken, a window of past observations and actions, the current observation and the admissible actions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sdar_envs.alfworld.room import room_places
from sdar_envs.base import EnvError, EpisodeView, ParsedAction, PromptFormat

_OPEN, _CLOSE = "<action>", "</action>"
_FALLBACK_CHARS = 30
_CHINESE = re.compile("[\u4e00-\u9fff]")

_INTRO = "You act in a household described in text."
_WITH_THINKING = (
    "First reason about what to do next inside <think> </think>. "
    "Then write one of the admissible actions inside <action> </action>."
)
_WITHOUT_THINKING = "Answer with one of the admissible actions inside <action> </action> and nothing else."


@dataclass(frozen=True)
class AlfworldFormat(PromptFormat):
    """Renders an `EpisodeView` and reads the action back out of the model's answer.

    Attributes:
        thinking: True asks for ``<think>..</think><action>..</action>`` and calls an answer without both think tags
            invalid; False asks for the action alone and ignores think tags.
        history_length: how many past (observation, action) pairs later prompts show; 0 shows none.
        require_admissible: True also calls an action invalid that is not in the admissible list. Off by default:
            the contract lets such an action through, and the engine answers "Nothing happens.".
        room_list: True repeats the room's places, in the order in which the first observation names them, in later
            prompts. Off by default: the contract does not have it.

    Raises:
        EnvError: `history_length` is negative.
    """

    thinking: bool = True
    history_length: int = 2
    require_admissible: bool = False
    room_list: bool = False

    def __post_init__(self) -> None:
        if self.history_length < 0:
            raise EnvError(f"history_length is {self.history_length}; set it to 0 (no history) or more")

    def render(self, view: EpisodeView) -> str:
        """The user message for the current step; `view.history` holds every earlier step of the episode."""
        parts = [_INTRO]
        if view.history:
            parts.append(self._later(view))
        else:
            parts.append(f"Observation: {view.observation.strip()}")
        actions = "\n".join(f"'{action}'" for action in view.admissible_actions if action != "help")
        parts.append(f"Admissible actions:\n{actions}")
        parts.append(_WITH_THINKING if self.thinking else _WITHOUT_THINKING)
        return "\n".join(parts)

    def _later(self, view: EpisodeView) -> str:
        taken = len(view.history)
        lines = [f"Task: {view.task_description}"]
        if self.room_list:
            lines.append("Places: " + ", ".join(room_places(view.history[0][0])))
        shown = view.history[max(0, taken - self.history_length) :]
        if shown:
            lines.append(f"Steps taken: {taken}. The last {len(shown)}:")
            for number, (observation, action) in enumerate(shown, taken - len(shown) + 1):
                lines.append(f"[Observation {number}: '{observation.strip()}', Action {number}: '{action}']")
        else:
            lines.append(f"Steps taken: {taken}.")
        lines.append(f"Step {taken + 1}. Observation: {view.observation.strip()}")
        return "\n".join(lines)

    def parse(self, text: str, admissible_actions: Sequence[str]) -> ParsedAction:
        """Read the action out of `text`; never raises.

        The action is the lower-cased text between the first ``<action>`` and the ``</action>`` that follows it. Where
        a tag is missing, the last 30 characters are played and the answer counts as invalid.
        """
        lowered = text.lower()
        start = lowered.find(_OPEN)
        end = lowered.find(_CLOSE, start + len(_OPEN)) if start >= 0 else -1
        if end < 0:
            return ParsedAction(lowered[-_FALLBACK_CHARS:], False, "no <action>..</action>")
        action = lowered[start + len(_OPEN) : end].strip()
        return ParsedAction(action, *self._judge(text, action, admissible_actions))

    def _judge(self, text: str, action: str, admissible_actions: Sequence[str]) -> tuple[bool, str]:
        if self.thinking and not ("<think>" in text and "</think>" in text):
            return False, "no <think>..</think>"
        if _CHINESE.search(text):
            return False, "Chinese characters"
        if self.require_admissible and action not in admissible_actions:
            return False, "not an admissible action"
        return True, ""
