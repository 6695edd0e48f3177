"""Retrievers by name. A new one is a class in a file of its own and one entry in `_CLASSES`."""

from __future__ import annotations

from sdar_verl.skills.errors import SkillError
from sdar_verl.skills.retrievers.base import Retriever, RetrieverOptions, SkillQuery
from sdar_verl.skills.retrievers.full import FullRetriever
from sdar_verl.skills.retrievers.none import NoneRetriever
from sdar_verl.skills.retrievers.random import RandomRetriever
from sdar_verl.skills.retrievers.rules import RulesRetriever
from sdar_verl.skills.retrievers.semantic import SemanticRetriever
from sdar_verl.skills.retrievers.ucb import UcbRetriever
from sdar_verl.skills.retrievers.wrong_task import WrongTaskRetriever
from sdar_verl.skills.store import SkillStore

_CLASSES: dict[str, type[Retriever]] = {
    cls.name: cls
    for cls in (
        RulesRetriever,
        FullRetriever,
        RandomRetriever,
        NoneRetriever,
        WrongTaskRetriever,
        UcbRetriever,
        SemanticRetriever,
    )
}


def names() -> list[str]:
    return sorted(_CLASSES)


def make(
    name: str,
    store: SkillStore,
    *,
    allow_missing: bool = False,
    seed: int = 0,
    options: RetrieverOptions | None = None,
) -> Retriever:
    """The retriever called `name` over `store`; raises `SkillError` naming the known ones."""
    if name not in _CLASSES:
        raise SkillError(f"unknown retriever {name!r}; known: {', '.join(names())}")
    return _CLASSES[name](store, allow_missing=allow_missing, seed=seed, options=options)


__all__ = ["Retriever", "RetrieverOptions", "SkillQuery", "make", "names"]
