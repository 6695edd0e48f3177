"""The world itself: entities, one object for each of their relations, and passages that tell them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from sdar_envs.search_qa.corpus import Passage
from sdar_envs.search_qa.world import names
from sdar_envs.search_qa.world.knobs import WorldKnobs
from sdar_envs.search_qa.world.language import ALIAS, FILLERS, KINDS, MENTIONS, RELATIONS, WORD, YEAR, Relation

_SHARES = {"city": 0.25, "country": 0.06, "company": 0.35, "novel": 0.5, "film": 0.5, "university": 0.12}
_WITH_ALIAS = ("person", "company", "novel", "film")
_YEARS = (1780, 2015)


@dataclass(frozen=True)
class Entity:
    """Attributes:
    alias: its other name, empty if it has none.
    """

    kind: str
    name: str
    alias: str = ""


@dataclass
class World:
    """Attributes:
    entities: by kind, in a fixed order.
    objects: the object of each (entity name, relation name), as text; entities by their name.
    """

    entities: dict[str, list[Entity]] = field(default_factory=dict)
    objects: dict[tuple[str, str], str] = field(default_factory=dict)
    _index: dict[tuple[str, str], Entity] = field(default_factory=dict, repr=False)
    _inverse: dict[tuple[str, str], list[str]] = field(default_factory=dict, repr=False)

    def entity(self, kind: str, name: str) -> Entity:
        return self._index[kind, name]

    def object(self, name: str, relation: Relation) -> str:
        return self.objects[name, relation.name]

    def subjects(self, relation: Relation, name: str) -> list[str]:
        """The entities whose `relation` is `name`."""
        return self._inverse.get((relation.name, name), [])

    def freeze(self) -> World:
        """Make the world ready for questions once everything is in it."""
        self._index = {(entity.kind, entity.name): entity for group in self.entities.values() for entity in group}
        for (subject, name), value in self.objects.items():
            self._inverse.setdefault((name, value), []).append(subject)
        return self


def make_world(seed: int, knobs: WorldKnobs) -> World:
    """The same seed and knobs give the same world."""
    rng = Random(f"{seed}/world")
    words = names.Words(rng, knobs.words)
    taken: set[str] = set()
    world = World()
    for kind in KINDS:
        if kind == "person":
            found = names.people(words, taken, knobs.people, knobs.namesakes)
        else:
            found = names.named(kind, words, taken, max(4, round(_SHARES[kind] * knobs.people)))
        aliases = [""] * len(found) if knobs.words else [names.unique(words.endless("", 2, 2), taken) for _ in found]
        world.entities[kind] = [
            Entity(kind, name, alias if kind in _WITH_ALIAS else "") for name, alias in zip(found, aliases, strict=True)
        ]
    pools = {kind: [entity.name for entity in group] for kind, group in world.entities.items()}
    for relation in RELATIONS:
        subjects = pools[relation.subject]
        objects = (
            _couples(subjects, rng) if relation.name == "spouse" else [_draw(pools, relation, words) for _ in subjects]
        )
        world.objects.update(((name, relation.name), value) for name, value in zip(subjects, objects, strict=True))
    return world.freeze()


def _draw(pools: dict[str, list[str]], relation: Relation, words: names.Words) -> str:
    if relation.object == YEAR:
        return str(words.rng.randint(*_YEARS))
    if relation.object == WORD:
        return words.draw("currency", 1, 1).lower()
    return words.rng.choice(pools[relation.object])


def _couples(people: list[str], rng: Random) -> list[str]:
    """A spouse for everybody, both ways round; with an odd number the last one names somebody's."""
    order = rng.sample(people, len(people))
    spouse = {order[-1]: order[0]}
    for one, other in zip(order[::2], order[1::2], strict=False):
        spouse |= {one: other, other: one}
    return [spouse[name] for name in people]


def tell(world: World, seed: int, knobs: WorldKnobs) -> Iterator[Passage]:
    """Passages in mixed order; each fact is told once on its subject's page, some a second time on their object's."""
    rng = Random(f"{seed}/passages")
    everything = [entity for group in world.entities.values() for entity in group]
    texts = [text for entity in everything for text in _passages(world, entity, everything, rng, knobs)]
    rng.shuffle(texts)
    for number, (title, text) in enumerate(texts):
        yield Passage(f"w{number}", f'"{title}"\n{text}')


def _passages(
    world: World, entity: Entity, everything: list[Entity], rng: Random, knobs: WorldKnobs
) -> Iterator[tuple[str, str]]:
    facts = [
        rng.choice(relation.sentences).format(s=entity.name, o=world.object(entity.name, relation))
        for relation in RELATIONS
        if relation.subject == entity.kind
    ]
    facts += [
        relation.back.format(s=subject, o=entity.name)
        for relation in RELATIONS
        if relation.back and relation.object == entity.kind
        for subject in world.subjects(relation, entity.name)
        if rng.random() < knobs.backlinks
    ]
    rng.shuffle(facts)
    if entity.alias:
        facts.insert(0, ALIAS.format(s=entity.name, o=entity.alias))
    for start in range(0, len(facts), knobs.facts_per_passage):
        sentences = facts[start : start + knobs.facts_per_passage]
        sentences += [rng.choice(FILLERS).format(s=entity.name) for _ in range(knobs.fillers)]
        sentences += [rng.choice(MENTIONS).format(o=rng.choice(everything).name) for _ in range(knobs.mentions)]
        rng.shuffle(sentences)
        yield entity.name, " ".join(sentences)
