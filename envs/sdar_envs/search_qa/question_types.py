"""The type of a question, by which skills are chosen."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from sdar_envs.base import EnvError

TASK_TYPES = ("fact", "attribute", "bridge", "comparison")
SOURCES = {
    "nq": "fact",
    "triviaqa": "fact",
    "popqa": "attribute",
    "hotpotqa": "bridge",
    "2wikimultihopqa": "bridge",
    "musique": "bridge",
    "bamboogle": "bridge",
}
_NAMED_TYPES = {kind: kind for kind in TASK_TYPES} | {
    "compositional": "bridge",
    "inference": "bridge",
    "bridge_comparison": "comparison",
}
_DEGREE = (
    "first|earlier|later|older|younger|longer|shorter|more|most|fewer|less|larger|bigger|smaller|higher|lower|taller|"
    "newer|closer|farther|recently|last|same|both|better|greater|oldest|youngest|largest"
)
_COMPARISON = (
    re.compile(rf"\b({_DEGREE})\b.*\bor\b", re.IGNORECASE),
    re.compile(r"^(are|were|is|was|do|does|did|have|has|had)\b.*\b(same|both|either|also)\b", re.IGNORECASE),
    re.compile(r"\b(which|who|what)\b.*,.*\bor\b", re.IGNORECASE),
    re.compile(r"\b(have|in) common\b|\bboth\b.*\bsame\b", re.IGNORECASE),
)


def question_type(source: str, text: str, metadata: Any = None) -> str:
    """One of `TASK_TYPES`: what the row's metadata say, else the kind of its source.

    Questions of multi-hop sources are comparisons where their words compare two named things, else bridges. Only the
    question decides, never a prompt template.

    Raises:
        EnvError: neither the metadata nor the source tell.
    """
    named = mapping(metadata).get("type")
    if named in _NAMED_TYPES:
        return _NAMED_TYPES[named]
    if source not in SOURCES:
        raise EnvError(
            f"the type of questions from {source!r} is not known (known: {', '.join(SOURCES)}); give its rows a "
            f"metadata field {{'type': ...}} out of {', '.join(TASK_TYPES)}"
        )
    if SOURCES[source] == "bridge" and any(pattern.search(text) for pattern in _COMPARISON):
        return "comparison"
    return SOURCES[source]


def mapping(metadata: Any) -> Mapping[str, Any]:
    """Metadata as some files have them: a struct, a JSON text, or nothing."""
    if isinstance(metadata, str):
        try:
            metadata = json.loads(metadata)
        except ValueError:
            return {}
    return metadata if isinstance(metadata, Mapping) else {}
