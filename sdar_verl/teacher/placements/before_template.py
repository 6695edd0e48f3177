"""`before_template`: the privileged text stands in front of the whole templated prompt, outside any turn."""

from __future__ import annotations

from sdar_verl.teacher.placements.base import Placement
from sdar_verl.teacher.templating import Messages, prompt_ids


class BeforeTemplatePlacement(Placement):
    """Where the authors' code has it. The student's prompt ids follow unchanged, a begin token included.

    No turn opens before the text, which chat models hardly ever saw in training; prefer `system` unless you compare.
    """

    name = "before_template"

    def ids(self, messages: Messages, privileged: str) -> list[int]:
        prefix = self.tokenizer.encode(f"{privileged}\n\n", add_special_tokens=False)
        return [int(i) for i in prefix] + prompt_ids(self.tokenizer, messages, self.kwargs)
