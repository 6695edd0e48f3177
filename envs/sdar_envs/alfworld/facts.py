"""The facts that a game's texts ask about, and the matching of conjunctive queries against them.

TextWorld keeps facts as objects and sorts them at every level of every query. Here a fact is a tuple of names, each
signature keeps one sorted list until it changes, and queries are parsed once. Order of results and the rule that two
placeholders never share a variable are TextWorld's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

Placeholder = tuple[str, str]  # (name, type)
Signature = tuple[str, tuple[str, ...]]  # (predicate, types of its arguments)
Binding = dict[Placeholder, str]  # placeholder -> name of an entity
Arguments = tuple[str, ...]

_NEGATION = "not_"


class Condition(NamedTuple):
    """One conjunct of a query, for example ``inreceptacle(o:object, r:receptacle)``."""

    signature: Signature
    placeholders: tuple[Placeholder, ...]


@lru_cache(maxsize=2048)
def parse_query(text: str) -> tuple[Condition, ...]:
    """``a(x:t) & b(y:u)`` as conditions, by TextWorld's own parser."""
    from textworld.logic import Rule

    predicates = Rule.parse_conjunctive_query(text).preconditions
    return tuple(
        Condition((p.name, tuple(p.signature.types)), tuple((ph.name, ph.type) for ph in p.parameters))
        for p in predicates
    )


def negated(predicate: str) -> str:
    return predicate[len(_NEGATION) :] if predicate.startswith(_NEGATION) else _NEGATION + predicate


class TypeTree:
    """Which signatures a query's signature stands for: its types and all their subtypes, in TextWorld's order.

    Args:
        types: TextWorld's ``TypeHierarchy`` of the game.
    """

    def __init__(self, types: Any) -> None:
        self._types = types
        self._known: dict[Signature, tuple[Signature, ...]] = {}

    def expand(self, signature: Signature) -> tuple[Signature, ...]:
        known = self._known.get(signature)
        if known is None:
            predicate, names = signature
            choices = self._types.multi_subtypes([self._types.get(name) for name in names])
            known = tuple((predicate, tuple(t.name for t in choice)) for choice in choices)
            self._known[signature] = known
        return known


class Facts:
    """A set of facts by signature, with sorted views; `copy` is cheap because unchanged sets are shared."""

    def __init__(self, facts: Mapping[Signature, frozenset[Arguments]], types: TypeTree) -> None:
        self._sets: dict[Signature, frozenset[Arguments]] = dict(facts)
        self._sorted: dict[Signature, list[Arguments]] = {}
        self._types = types

    def copy(self) -> Facts:
        other = Facts(self._sets, self._types)
        other._sorted = dict(self._sorted)
        return other

    def add(self, signature: Signature, arguments: Arguments) -> None:
        """Make a fact true; its negation (see `negated`) stops being a fact."""
        opposite = (negated(signature[0]), signature[1])
        if arguments in self._sets.get(opposite, ()):
            self._sets[opposite] = self._sets[opposite] - {arguments}
            self._sorted.pop(opposite, None)
        self._sets[signature] = self._sets.get(signature, frozenset()) | {arguments}
        self._sorted.pop(signature, None)

    def entities(self) -> dict[str, str]:
        """Name to type of everything that occurs in a fact."""
        pairs = {}
        for (_, types), members in self._sets.items():
            for arguments in members:
                pairs.update(zip(arguments, types, strict=True))
        return pairs

    def matches(self, query: tuple[Condition, ...], binding: Binding) -> Iterator[Binding]:
        """All ways to extend `binding` so that every condition of `query` is a fact."""
        yield from self._match(query, 0, dict(binding), set(binding.values()))

    def _match(self, query: tuple[Condition, ...], depth: int, binding: Binding, used: set[str]) -> Iterator[Binding]:
        if depth == len(query):
            yield dict(binding)
            return
        signature, placeholders = query[depth]
        new = [ph for ph in placeholders if ph not in binding]
        for concrete in self._types.expand(signature):
            for arguments in self._ordered(concrete):
                for placeholder, name in zip(placeholders, arguments, strict=True):
                    bound = binding.get(placeholder)
                    if bound is None:
                        if name in used:
                            break
                        binding[placeholder] = name
                        used.add(name)
                    elif bound != name:
                        break
                else:
                    yield from self._match(query, depth + 1, binding, used)
                for placeholder in new:
                    used.discard(binding.pop(placeholder, ""))

    def _ordered(self, signature: Signature) -> list[Arguments]:
        ordered = self._sorted.get(signature)
        if ordered is None:
            ordered = self._sorted[signature] = sorted(self._sets.get(signature, ()))
        return ordered
