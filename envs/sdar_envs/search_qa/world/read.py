"""Reading the world's language back: what a question asks, what passages tell."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from sdar_envs.search_qa.world.language import ALIAS, RELATIONS, SAME_COUNTRY, Relation, name_in, pattern

_TITLE = re.compile(r'"(?P<title>[^"\n]+)"\n(?P<text>.*)', re.DOTALL)
_ALIAS = pattern(ALIAS)
_SAME = pattern(SAME_COUNTRY)


@dataclass(frozen=True)
class Chain:
    """Start at `start` and follow `relations`; with `inverse`, the last one is followed from object to subject."""

    start: str
    relations: tuple[Relation, ...]
    inverse: bool = False


@dataclass(frozen=True)
class Plan:
    """What a question asks: the end of one chain, or a comparison of the ends of two.

    Attributes:
        compare: empty, ``first`` (the start whose end is smaller) or ``same`` (yes or no).
    """

    chains: tuple[Chain, ...]
    compare: str = ""


@lru_cache(maxsize=4096)
def read_question(text: str) -> Plan | None:
    """The plan of one of the world's own questions; None for any other text."""
    text = text.strip()
    if same := _SAME.fullmatch(text):
        country = next(r for r in RELATIONS if r.name == "country")
        return Plan(tuple(Chain(name_in(same[side]), (country,)) for side in "ab"), "same")
    for relation in RELATIONS:
        if relation.first and (found := pattern(relation.first).fullmatch(text)):
            return Plan(tuple(Chain(name_in(found[side]), (relation,)) for side in "ab"), "first")
        if found := pattern(relation.question).fullmatch(text):
            return Plan((_chain(found["s"], (relation,)),))
        if relation.inverse and (found := pattern(relation.inverse).fullmatch(text)):
            return Plan((Chain(name_in(found["o"]), (relation,), inverse=True),))
    return None


def _chain(phrase: str, later: tuple[Relation, ...]) -> Chain:
    """Unwrap ``the author of the ...`` from the outside, where its object fits what is asked of it."""
    for relation in RELATIONS:
        if relation.noun and relation.object == later[0].subject:
            if found := pattern(relation.noun).fullmatch(phrase):
                return _chain(found["s"], (relation, *later))
    return Chain(name_in(phrase), later)


@dataclass
class Notes:
    """What was read so far.

    Attributes:
        objects: object by (subject's name, relation's name).
        names: the name behind each other name that was explained.
        read: titles of the passages read.
    """

    objects: dict[tuple[str, str], str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)

    def subject(self, relation: Relation, name: str) -> str:
        """A subject whose `relation` is `name`, empty if none was read."""
        return next((s for (s, r), o in self.objects.items() if r == relation.name and o == name), "")


def take_notes(passages: Iterable[str]) -> Notes:
    """Read passages; a sentence counts when it tells a fact about the passage's own title."""
    notes = Notes()
    for passage in passages:
        found = _TITLE.fullmatch(passage.strip())
        if not found:
            continue
        title = found["title"]
        notes.read.add(title)
        for sentence in re.split(r"(?<=\.)\s+", found["text"]):
            if (alias := _ALIAS.fullmatch(sentence)) and alias["s"] == title:
                notes.names[alias["o"]] = title
            for relation, told, page in _readings(sentence):
                if told[page] == title:
                    notes.objects[told["s"], relation.name] = told["o"]
    return notes


def _readings(sentence: str) -> Iterable[tuple[Relation, re.Match[str], str]]:
    """What a sentence may tell, and on whose page it stands: its subject's (``s``) or its object's (``o``)."""
    for relation in RELATIONS:
        for told in relation.patterns:
            if found := told.fullmatch(sentence):
                yield relation, found, "s"
        if relation.back_pattern and (found := relation.back_pattern.fullmatch(sentence)):
            yield relation, found, "o"
