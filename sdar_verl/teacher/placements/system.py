"""`system`: the privileged text is a system message, or the end of the one that is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdar_verl.teacher.errors import TeacherContextError
from sdar_verl.teacher.placements.base import PROBE, PROBE_CONVERSATION, Placement, content_of
from sdar_verl.teacher.templating import Messages, prompt_ids, prompt_text


class SystemPlacement(Placement):
    """The default. The student's system text stays in front of the privileged text.

    Some templates (Qwen2.5) write a system text of their own when a conversation brings none, others (Qwen3) write
    nothing. The template's own text is found when the run starts and kept, so that skills are the only difference
    between the two prompts.
    """

    name = "system"

    def __init__(self, tokenizer: Any, kwargs: Mapping[str, Any]):
        super().__init__(tokenizer, kwargs)
        self.default_system = default_system(tokenizer, kwargs)

    def ids(self, messages: Messages, privileged: str) -> list[int]:
        messages = [dict(message) for message in messages]
        if messages and messages[0].get("role") == "system":
            own = content_of(messages[0])
            messages[0]["content"] = f"{own}\n\n{privileged}" if own else privileged
        else:
            text = f"{self.default_system}\n\n{privileged}" if self.default_system else privileged
            messages.insert(0, {"role": "system", "content": text})
        return prompt_ids(self.tokenizer, messages, self.kwargs)


def default_system(tokenizer: Any, kwargs: Mapping[str, Any]) -> str:
    """The system text that the chat template writes on its own; empty if it writes none.

    Found by comparing a conversation with a known system message to one without, and proven by giving the found text
    as the system message, which must render the conversation without one.
    """
    bare = prompt_text(tokenizer, PROBE_CONVERSATION, kwargs)
    try:
        probed = _with_system(tokenizer, PROBE, kwargs)
    except TeacherContextError as error:
        raise TeacherContextError(f"{error}. This model takes no system message: use placement user_prefix") from error
    if PROBE not in probed:
        raise TeacherContextError("the chat template drops system messages: use placement user_prefix")
    before, _, after = probed.partition(PROBE)
    if not (bare.startswith(before) and bare.endswith(after) and len(bare) > len(before) + len(after)):
        return ""
    found = bare[len(before) : len(bare) - len(after)]
    return found if _with_system(tokenizer, found, kwargs) == bare else ""


def _with_system(tokenizer: Any, text: str, kwargs: Mapping[str, Any]) -> str:
    return prompt_text(tokenizer, ({"role": "system", "content": text}, *PROBE_CONVERSATION), kwargs)
