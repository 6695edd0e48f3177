"""`user_prefix`: the privileged text opens the first user message."""

from __future__ import annotations

from sdar_verl.teacher.errors import TeacherContextError
from sdar_verl.teacher.placements.base import Placement, content_of
from sdar_verl.teacher.templating import Messages, prompt_ids


class UserPrefixPlacement(Placement):
    """For models that take no system message, or that were trained without one."""

    name = "user_prefix"

    def ids(self, messages: Messages, privileged: str) -> list[int]:
        messages = [dict(message) for message in messages]
        for message in messages:
            if message.get("role") == "user":
                message["content"] = f"{privileged}\n\n{content_of(message)}"
                return prompt_ids(self.tokenizer, messages, self.kwargs)
        raise TeacherContextError("the conversation holds no user message to put the privileged text into")
