"""Texts of a game from its grammar: TextWorld's context-sensitive grammar, evaluated without copies.

TextWorld copies the whole context (with every entity) for each symbol and parses each text again at every use. Here
parsed symbols are shared and never changed, contexts are two small dictionaries, and the result is the same text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple

from textworld.envs.pddl import textgen

from sdar_envs.alfworld.facts import Binding, Facts, parse_query


class Scope(NamedTuple):
    """What a derivation sees: entities by variable name, entity names by placeholder, and the facts."""

    variables: Mapping[str, Any]
    binding: Binding
    facts: Facts
    touched: set[str]  # predicates that were looked at, filled in by the derivation


class Production(NamedTuple):
    condition: str
    symbols: tuple[Any, ...]


@lru_cache(maxsize=4096)
def parse_symbols(text: str) -> tuple[Any, ...]:
    """The symbols of a grammar text, by TextWorld's own parser; shared, so nobody may change them."""
    return tuple(textgen._parse_and_convert(text, rule_name="symbols"))


@lru_cache(maxsize=1024)
def _compiled(expression: str) -> CodeType:
    return compile(expression.strip(), "<grammar>", "eval")


class Grammar:
    """The productions of one game.

    Args:
        productions: name to alternatives, as in the game's JSON: ``[{"rhs": text, "condition": query}, ...]``.
        entities: all entities of the game by id.
    """

    def __init__(self, productions: Mapping[str, Iterable[Mapping[str, str]]], entities: Mapping[str, Any]) -> None:
        self._productions = {
            name: tuple(Production(rule.get("condition", ""), parse_symbols(rule["rhs"])) for rule in rules)
            for name, rules in productions.items()
        }
        self._entities = entities

    def scope(self, binding: Binding, facts: Facts) -> Scope:
        variables = {placeholder[0]: self._entities[name] for placeholder, name in binding.items()}
        return Scope(variables, binding, facts, set())

    def derive(self, text: str, scope: Scope) -> str:
        """The final text of `text` in `scope`; raises `KeyError` for a symbol the grammar does not have."""
        return self._derive(parse_symbols(text), scope)

    def _derive(self, symbols: Iterable[Any], scope: Scope) -> str:
        return "".join([self._text(symbol, scope) for symbol in symbols])

    def _text(self, symbol: Any, scope: Scope) -> str:
        kind = type(symbol)
        if kind is textgen.TerminalSymbol:
            return str(symbol.symbol)
        if kind is textgen.EvalSymbol:
            code = _compiled(symbol.expression)
            return str(eval(code, vars(textgen), dict(scope.variables)))  # the engine evaluates the game's grammar too
        if kind is textgen.NonterminalSymbol:
            return self._derive(self._chosen(str(symbol.symbol), scope), scope)
        if kind is textgen.ConditionalSymbol:
            return "".join(self._items(symbol, scope))
        if kind is textgen.ListSymbol:
            return self._joined(self._items(symbol.symbol, scope), scope)
        raise TypeError(f"unknown grammar symbol {symbol!r}")

    def _chosen(self, name: str, scope: Scope) -> tuple[Any, ...]:
        """The symbols of the first alternative whose condition holds."""
        for condition, symbols in self._productions[name]:
            if not condition or next(self._matches(condition, scope), None) is not None:
                return symbols
        raise KeyError(f"no alternative of {name!r} applies")

    def _items(self, symbol: Any, scope: Scope) -> list[str]:
        """The texts of ``{expression | query}``: one for each match of the query."""
        if not symbol.given:
            return [self._text(symbol.expression, scope)]
        items = []
        for binding in self._matches(symbol.given, scope):
            added = {ph[0]: self._entities[name] for ph, name in binding.items()}
            inner = Scope({**scope.variables, **added}, binding, scope.facts, scope.touched)
            items.append(self._text(symbol.expression, inner))
        return items

    def _joined(self, items: list[str], scope: Scope) -> str:
        if not items:
            return self._named("list_empty", scope)
        if len(items) == 1:
            return items[0]
        separator, last = self._named("list_separator", scope), self._named("list_last_separator", scope)
        return separator.join(items[:-1]) + last + items[-1]

    def _named(self, name: str, scope: Scope) -> str:
        return self._derive(self._chosen(name, scope), scope)

    def _matches(self, query: str, scope: Scope) -> Any:
        conditions = parse_query(query)
        scope.touched.update(condition.signature[0] for condition in conditions)
        return scope.facts.matches(conditions, scope.binding)


class ActionTexts(NamedTuple):
    """How one action is typed (`template`) and answered (`feedback`)."""

    template: str
    feedback: str


def read_grammar(text: str) -> tuple[dict[str, ActionTexts], dict[str, list[dict[str, str]]]]:
    """A game's grammar text as actions by lower-case name and productions by name, with TextWorld's parser."""
    from textworld.envs.pddl import logic

    actions: dict[str, ActionTexts] = {}
    productions: dict[str, list[dict[str, str]]] = {}
    converter = logic._ModelConverter()
    for part in logic._PARSER.parse(text, rule_name="pddlStart").parts:
        if isinstance(part, logic.model.ActionTypeNode):
            action = converter.walk(part)
            actions[action.name.lower()] = ActionTexts(action.template, action.feedback_rule)
            lines = [line for line in action.grammar.split("\n") if not line.lstrip().startswith("#")]
            productions.update(json.loads("\n".join(lines)))
        elif isinstance(part, logic.model.ActionGrammarNode):
            productions.update(json.loads(converter._unescape_block(part.code)))
    return actions, productions
