"""What every placement is: a conversation and the privileged text go in, prompt ids come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from sdar_verl.teacher.errors import TeacherContextError
from sdar_verl.teacher.templating import Messages

PROBE = "sdar probe of the privileged text"
PROBE_CONVERSATION = ({"role": "user", "content": "sdar probe of the user"},)


class Placement(ABC):
    """Where the privileged text goes.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        kwargs: for the chat template, the same as the student's.
    """

    name: str

    def __init__(self, tokenizer: Any, kwargs: Mapping[str, Any]):
        self.tokenizer = tokenizer
        self.kwargs = kwargs

    @abstractmethod
    def ids(self, messages: Messages, privileged: str) -> list[int]:
        """Prompt ids of `messages` with `privileged` put in its place; `messages` is left as it is."""


def content_of(message: Mapping[str, Any]) -> str:
    """The text of `message`; raises for content that is not plain text."""
    content = message.get("content")
    if not isinstance(content, str):
        raise TeacherContextError(
            f"the {message.get('role')} message holds {type(content).__name__}, not text; "
            "privileged text can only be added to plain text"
        )
    return content
