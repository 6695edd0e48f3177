"""Questions about the world: one fact, a chain of facts, or two facts compared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from sdar_envs.base import EnvError
from sdar_envs.search_qa.questions import Question
from sdar_envs.search_qa.world.facts import Entity, World
from sdar_envs.search_qa.world.knobs import WorldKnobs
from sdar_envs.search_qa.world.language import KINDS, RELATIONS, SAME_COUNTRY, Relation, mention, relation

_TRIES = 400
_HELD_OUT = 0.25  # share of entities from which only questions of splits other than train start


def ask(world: World, split: str, count: int, seed: int, knobs: WorldKnobs) -> list[Question]:
    """`count` different questions, the task types in turn.

    A question of ``train`` and one of another split never start from the same entity.

    Raises:
        EnvError: the world is too small for so many questions.
    """
    rng = Random(f"{seed}/{split}/questions")
    asker = _Asker(world, split, seed, rng, knobs)
    makers: dict[str, Callable[[], Question | None]] = {
        "fact": asker.inverse,
        "attribute": lambda: asker.chain(1),
        "bridge": lambda: asker.chain(rng.randint(2, knobs.max_hops)),
        "comparison": asker.comparison,
    }
    asked: dict[str, Question] = {}
    while len(asked) < count:
        kind = knobs.task_types[len(asked) % len(knobs.task_types)]
        drawn = (makers[kind]() for _ in range(_TRIES))
        question = next((q for q in drawn if q is not None and q.text not in asked), None)
        if question is None:
            raise EnvError(
                f"the world has no more {kind} questions after {len(asked)} of {count}: raise people, or ask for fewer"
            )
        asked[question.text] = question
    return list(asked.values())


def _held_out(seed: int, name: str) -> bool:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()[0] < 256 * _HELD_OUT


@dataclass
class _Asker:
    world: World
    split: str
    seed: int
    rng: Random
    knobs: WorldKnobs

    def __post_init__(self) -> None:
        self._starts = {
            kind: [entity for entity in group if _held_out(self.seed, entity.name) == (self.split != "train")]
            for kind, group in self.world.entities.items()
        }

    def chain(self, hops: int) -> Question | None:
        """Follow `hops` relations from some entity; None if the walk has no way on or comes back to where it was."""
        entity = self.rng.choice(self._starts[self.rng.choice(KINDS)] or [None])
        if entity is None:
            return None
        subject, kind, shown = entity.name, entity.kind, self._mention(entity)
        seen, searches = {subject}, []
        for hop in range(1, hops + 1):
            ways = [r for r in RELATIONS if r.subject == kind and (hop == hops or r.noun)]
            if not ways:
                return None
            step = self.rng.choice(ways)
            value = self.world.object(subject, step)
            if value in seen:
                return None
            searches.append(_search(step, subject))
            shown = (step.question if hop == hops else step.noun).format(s=shown)
            subject, kind = value, step.object
            seen.add(value)
        task_type = "attribute" if hops == 1 else "bridge"
        return Question(shown, self._accepted(kind, subject), f"world_{hops}hop", task_type, tuple(searches))

    def inverse(self) -> Question | None:
        """Ask for the one subject that has some object; None if several have it."""
        step = self.rng.choice([r for r in RELATIONS if r.inverse])
        entity = self.rng.choice(self._starts[step.object] or [None])
        subjects = [] if entity is None else self.world.subjects(step, entity.name)
        if len(subjects) != 1:
            return None
        text = step.inverse.format(o=self._mention(entity))
        answers = self._accepted(step.subject, subjects[0])
        return Question(text, answers, "world_inverse", "fact", (f"{entity.name} {step.subject}",))

    def comparison(self) -> Question | None:
        """Compare two entities by a year, or by the country they belong to; None for a tie of years or too few."""
        steps = [r for r in RELATIONS if r.first]
        step = self.rng.choice([*steps, relation("country")])
        if len(self._starts[step.subject]) < 2:
            return None
        pair = self.rng.sample(self._starts[step.subject], 2)
        values = [self.world.object(entity.name, step) for entity in pair]
        shown = {"a": self._mention(pair[0]), "b": self._mention(pair[1])}
        searches = tuple(_search(step, entity.name) for entity in pair)
        if not step.first:
            if (values[0] == values[1]) != (self.rng.random() < 0.5):  # as many yes as no, as far as the world allows
                return None
            answer = ("yes",) if values[0] == values[1] else ("no",)
            return Question(SAME_COUNTRY.format(**shown), answer, "world_compare", "comparison", searches)
        if values[0] == values[1]:
            return None
        winner = min(zip(values, pair, strict=True), key=lambda item: int(item[0]))[1]
        answers = self._accepted(winner.kind, winner.name)
        return Question(step.first.format(**shown), answers, "world_compare", "comparison", searches)

    def _mention(self, entity: Entity) -> str:
        other = bool(entity.alias) and self.rng.random() < self.knobs.alias_questions
        return mention(entity.kind, entity.alias if other else entity.name)

    def _accepted(self, kind: str, name: str) -> tuple[str, ...]:
        if kind not in KINDS:
            return (name,)
        alias = self.world.entity(kind, name).alias
        return (name, alias) if alias else (name,)


def _search(step: Relation, subject: str) -> str:
    """A search for one fact: the subject and what is wanted of it."""
    return f"{subject} {step.name.replace('_', ' ')}"
