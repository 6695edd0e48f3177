"""One skill: a short text that the teacher may read and the student may not."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass

from sdar_verl.skills.errors import SkillError

_ID = re.compile(r"[a-z0-9]+(?:[._/-][a-z0-9]+)*")
_NAME = re.compile(r"[A-Za-z0-9_]+(?:[.-][A-Za-z0-9_]+)*")

# Markup with which chat templates and tokenizers mark turns. In a skill it could open a turn of its own.
_CHAT_MARKUP = re.compile(
    r"<\|[^|<>\n]{1,64}\|>"  # <|im_start|>, <|endoftext|>, <|eot_id|>
    r"|<\uff5c[^\uff5c<>\n]{1,64}\uff5c>"  # the same with full-width bars
    r"|</?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn)>"
    r"|\[/?INST\]|<</?SYS>>"
)


def canonical_text(text: str) -> str:
    """`text` with Unix line ends, no blanks at line ends, no blank lines around it, composed characters (NFC)."""
    lines = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip()


def text_problem(text: str) -> str | None:
    """What is wrong with `text` as a skill's text, or None if nothing is."""
    if not text:
        return "is empty; write it, or remove the skill"
    markup = _CHAT_MARKUP.search(text)
    if markup:
        return f"holds the chat markup {markup.group()!r}, which could open a turn of its own; remove it"
    for char in text:
        if char != "\n" and char != "\t" and unicodedata.category(char) in ("Cc", "Cs"):
            return f"holds the control character U+{ord(char):04X}; remove it"
    return None


@dataclass(frozen=True)
class Skill:
    """A unit of privileged context; general skills and task-specific ones are separate units.

    Attributes:
        id: stable name, lower-case letters and digits joined by ``. _ / -``; unique in a store.
        text: what the teacher reads.
        env: the environment it is for, as the registry of environments calls it.
        task_type: the environment's own category, or None for a general skill.
        version: 1, 2, ...; raised by the author when the text changes.
        provenance: where the text comes from (author, run, source).

    Text and provenance are kept in canonical form (see `canonical_text`).

    Raises:
        SkillError: a field is missing, of the wrong type, or not allowed.
    """

    id: str
    text: str
    env: str
    task_type: str | None
    version: int
    provenance: str

    def __post_init__(self) -> None:
        for name in ("id", "text", "env", "provenance"):
            if not isinstance(getattr(self, name), str):
                raise SkillError(f"skill {self.id!r}: {name} must be text, got {getattr(self, name)!r}")
        if not _ID.fullmatch(self.id):
            raise SkillError(f"skill id {self.id!r}: use lower-case letters and digits joined by . _ / or -")
        if not _NAME.fullmatch(self.env):
            raise SkillError(f"skill {self.id!r}: env {self.env!r} is not an environment's name")
        if self.task_type is not None and not (isinstance(self.task_type, str) and _NAME.fullmatch(self.task_type)):
            raise SkillError(f"skill {self.id!r}: task_type {self.task_type!r} is neither a task type's name nor null")
        if isinstance(self.version, bool) or not isinstance(self.version, int) or self.version < 1:
            raise SkillError(f"skill {self.id!r}: version must be a whole number from 1, got {self.version!r}")
        for name in ("text", "provenance"):
            text = canonical_text(getattr(self, name))
            problem = text_problem(text)
            if problem:
                raise SkillError(f"skill {self.id!r}: {name} {problem}")
            object.__setattr__(self, name, text)

    @property
    def is_general(self) -> bool:
        """True if the skill is for every task type of its environment."""
        return self.task_type is None

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) over what decides who reads what: env, task type and text.

        Renaming a skill, raising its version or correcting its provenance leaves the hash as it is.
        """
        content = {"env": self.env, "task_type": self.task_type, "text": self.text}
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
