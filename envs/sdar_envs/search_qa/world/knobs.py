"""How large and how hard a generated world is."""

from __future__ import annotations

from dataclasses import dataclass

from sdar_envs.base import EnvError
from sdar_envs.search_qa.question_types import TASK_TYPES
from sdar_envs.search_qa.world.names import least_words


@dataclass(frozen=True)
class WorldKnobs:
    """Attributes:
    people: how many persons; everything else scales with it.
    namesakes: persons who share a family name, and given names about as often: more of them mislead more searches.
    facts_per_passage: facts that one passage tells; with few, one search tells less.
    mentions: sentences in each passage that name other things without telling a fact about them.
    fillers: empty sentences in each passage.
    backlinks: share of facts such as "who wrote it" that the object's own page tells too; without them, questions
        for the subject are hard to search for.
    alias_questions: share of questions that call their first thing by its other name.
    max_hops: longest chain of facts, 1 to 3; an episode of 4 turns has 3 searches.
    words: size of the lexicon that every world's names are made of: so many words for given names, for family names,
        for cities and so on, and no other names beside them; 0 invents each world's own words. Small language models
        can have a token for each word of a lexicon.
    task_types: kinds of question, drawn in turn.

    Raises:
        EnvError: a value outside its range.
    """

    people: int = 160
    namesakes: int = 4
    facts_per_passage: int = 2
    mentions: int = 1
    fillers: int = 1
    backlinks: float = 0.7
    alias_questions: float = 0.2
    max_hops: int = 3
    words: int = 0
    task_types: tuple[str, ...] = TASK_TYPES

    def __post_init__(self) -> None:
        for name, low, high in (
            ("people", 24, 20_000),
            ("namesakes", 1, 50),
            ("facts_per_passage", 1, 10),
            ("mentions", 0, 10),
            ("fillers", 0, 10),
            ("max_hops", 1, 3),
            ("words", 0, 20_000),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise EnvError(f"{name} is {value!r}; it takes a whole number from {low} to {high}")
        for name in ("backlinks", "alias_questions"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise EnvError(f"{name} is {getattr(self, name)}; it is a share between 0 and 1")
        if self.words:
            if self.words < (least := least_words(self.people, self.namesakes)):
                raise EnvError(f"words is {self.words}; {self.people} people need at least {least}, or 0")
            if self.alias_questions:
                raise EnvError("nothing has another name in a world of few words: set alias_questions to 0")
        unknown = [kind for kind in self.task_types if kind not in TASK_TYPES]
        if unknown or not self.task_types:
            raise EnvError(f"unknown or no task types in {self.task_types}; known: {', '.join(TASK_TYPES)}")
        if "bridge" in self.task_types and self.max_hops < 2:
            raise EnvError("bridge questions need max_hops of at least 2")
