"""How the world speaks: one table says how a fact is told, asked for and referred to, and how it is read back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

KINDS = ("person", "city", "country", "company", "novel", "film", "university")
YEAR, WORD = "year", "word"  # objects that are no entities
_DESCRIBED = ("novel", "film", "company")  # mentioned as "the novel X": their names look like other things


@dataclass(frozen=True)
class Relation:
    """A fact that every entity of a kind has exactly once; ``{s}`` is the subject, ``{o}`` the object.

    Attributes:
        name: for files.
        subject: kind of the subject.
        object: kind of the object, or `YEAR`, `WORD`.
        sentences: ways of telling it.
        question: asks for the object.
        noun: refers to the object inside another question; empty where the object is no entity.
        inverse: asks for the subject, where an object has only one; empty where it mostly has several.
        back: tells the fact on the object's own page; goes with `inverse`.
        first: asks which of ``{a}`` and ``{b}`` has the smaller year; only for years.
    """

    name: str
    subject: str
    object: str
    sentences: tuple[str, ...]
    question: str
    noun: str = ""
    inverse: str = ""
    back: str = ""
    first: str = ""

    @cached_property
    def patterns(self) -> tuple[re.Pattern[str], ...]:
        return tuple(pattern(sentence) for sentence in self.sentences)

    @cached_property
    def back_pattern(self) -> re.Pattern[str] | None:
        return pattern(self.back) if self.back else None


def pattern(template: str) -> re.Pattern[str]:
    """A template as a pattern for whole texts, with a group for each of its braces."""
    return re.compile(re.sub(r"\\\{(\w)\\\}", r"(?P<\1>.+)", re.escape(template)))


RELATIONS = (
    Relation(
        "birthplace",
        "person",
        "city",
        ("{s} was born in {o}.", "{o} is the birthplace of {s}.", "The childhood home of {s} was in {o}."),
        "Where was {s} born?",
        "the birthplace of {s}",
    ),
    Relation(
        "birth_year",
        "person",
        YEAR,
        ("{s} came into the world in the year {o}.", "The year of birth of {s} is {o}."),
        "In which year was {s} born?",
        first="Who was born first, {a} or {b}?",
    ),
    Relation(
        "spouse",
        "person",
        "person",
        ("{s} is married to {o}.", "{s} shares a household with {o} since their wedding."),
        "Who is {s} married to?",
        "the spouse of {s}",
    ),
    Relation(
        "university",
        "person",
        "university",
        ("{s} studied at {o}.", "{s} took a degree from {o}."),
        "At which university did {s} study?",
        "the university where {s} studied",
    ),
    Relation(
        "country",
        "city",
        "country",
        ("{s} is a city in {o}.", "{s} belongs to {o}."),
        "In which country is {s}?",
        "the country of {s}",
    ),
    Relation(
        "mayor",
        "city",
        "person",
        ("The mayor of {s} is {o}.", "{s} elected {o} as its mayor."),
        "Who is the mayor of {s}?",
        "the mayor of {s}",
        "Of which city is {o} the mayor?",
        "{o} holds the office of mayor in {s}.",
    ),
    Relation(
        "capital",
        "country",
        "city",
        ("The capital of {s} is {o}.", "{s} is governed from {o}."),
        "What is the capital of {s}?",
        "the capital of {s}",
    ),
    Relation(
        "currency",
        "country",
        WORD,
        ("People in {s} pay with the {o}.", "Prices in {s} are given in {o}."),
        "What is the currency of {s}?",
    ),
    Relation(
        "founder",
        "company",
        "person",
        ("{s} was founded by {o}.", "It was {o} who set up {s}."),
        "Who founded {s}?",
        "the founder of {s}",
        "Which company did {o} found?",
        "{o} started {s} with a loan.",
    ),
    Relation(
        "head_office",
        "company",
        "city",
        ("{s} has its head office in {o}.", "{s} is run from {o}."),
        "In which city is the head office of {s}?",
        "the city with the head office of {s}",
    ),
    Relation(
        "author",
        "novel",
        "person",
        ("{s} was written by {o}.", "{s} is a novel by {o}."),
        "Who wrote {s}?",
        "the author of {s}",
        "Which novel did {o} write?",
        "{o} made a name with the novel {s}.",
    ),
    Relation(
        "published",
        "novel",
        YEAR,
        ("{s} was first printed in {o}.", "Readers first held {s} in {o}."),
        "In which year was {s} published?",
        first="Which was published first, {a} or {b}?",
    ),
    Relation(
        "director",
        "film",
        "person",
        ("{s} was directed by {o}.", "{s} is a film by {o}."),
        "Who directed {s}?",
        "the director of {s}",
        "Which film did {o} direct?",
        "{o} stood behind the camera for {s}.",
    ),
    Relation(
        "released",
        "film",
        YEAR,
        ("{s} reached the cinemas in {o}.", "The premiere of {s} was in {o}."),
        "In which year was {s} released?",
        first="Which was released first, {a} or {b}?",
    ),
    Relation(
        "campus",
        "university",
        "city",
        ("{s} has its campus in {o}.", "The lecture halls of {s} stand in {o}."),
        "In which city is {s}?",
        "the city of {s}",
    ),
)
SAME_COUNTRY = "Are {a} and {b} in the same country?"
ALIAS = "{s} is also known as {o}."
FILLERS = (
    "{s} has been the subject of several exhibitions.",
    "Local newspapers write about {s} now and then.",
    "Opinions about {s} differ.",
    "A short radio programme dealt with {s}.",
    "Much about {s} has never been written down.",
    "School children learn the name {s} by heart.",
)
MENTIONS = (
    "A street near the station carries the name {o}.",
    "Visitors often ask about {o} as well.",
    "An old poster for {o} hangs in the hall.",
    "The same archive keeps letters about {o}.",
    "Some confuse this with {o}.",
)


def relation(name: str) -> Relation:
    return next(r for r in RELATIONS if r.name == name)


def mention(kind: str, name: str) -> str:
    """How a question calls an entity: ``the novel The Pale Door``, ``Orsa Belmor``."""
    return f"the {kind} {name}" if kind in _DESCRIBED else name


def name_in(mentioned: str) -> str:
    """The name in a `mention`."""
    for kind in _DESCRIBED:
        mentioned = mentioned.removeprefix(f"the {kind} ")
    return mentioned
