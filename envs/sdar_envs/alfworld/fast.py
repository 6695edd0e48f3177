"""The same engine without the repeated work: equal transcripts, loads, resets and steps many times cheaper."""

from __future__ import annotations

import fast_downward

from sdar_envs.alfworld.engine import Engine, EngineState
from sdar_envs.alfworld.facts import Facts
from sdar_envs.alfworld.native import private_library
from sdar_envs.alfworld.translation import GameCache, LoadedGame, prepare
from sdar_envs.base import EnvError

CACHED_GAMES = 128  # per process, at most 0.5 MB each
_CACHE = GameCache(CACHED_GAMES)


class FastEngine(Engine):
    """TextWorld's PDDL engine (the same planner library, translator and parsers) with shared, prepared games.

    Not thread-safe: the translator and the parsers are not.
    """

    def __init__(self) -> None:
        self._library = private_library()
        self._game: LoadedGame | None = None
        self._facts: Facts | None = None
        self._operators: dict[str, tuple[int, str, int]] = {}  # command -> (id, operator name, number of effects)

    def load(self, path: str) -> None:
        self._game = self._facts = None
        self._game = _CACHE.get(path, lambda: prepare(path, self._library))

    def reset(self) -> EngineState:
        game = self._loaded()
        game.start(self._library)
        self._facts = game.facts.copy()
        intro = game.grammar.derive("#intro#", game.grammar.scope({}, self._facts))
        return self._observe(intro)

    def step(self, command: str) -> EngineState:
        game, facts = self._loaded(), self._facts
        if facts is None:
            raise EnvError("reset must come before step")
        operator = self._operators.get(command.strip())
        if operator is None:
            return self._observe("Nothing happens.")
        number, name, effects = operator
        changed = (fast_downward.Atom * effects)()
        self._library.apply_operator(number, changed)
        for atom in changed:
            facts.add(*game.fact(atom.name))
        action, binding = game.binding(name)
        return self._observe(game.grammar.derive(game.actions[action].feedback, game.grammar.scope(binding, facts)))

    def _observe(self, feedback: str) -> EngineState:
        count = self._library.get_applicable_operators_count()
        operators = (fast_downward.Operator * count)()
        self._library.get_applicable_operators(operators)
        self._operators = {}
        for operator in operators:
            name = operator.name
            self._operators.setdefault(self._command(name), (operator.id, name, operator.nb_effect_atoms))
        return EngineState(feedback, tuple(sorted(self._operators)), bool(self._library.check_goal()))

    def _command(self, operator: str) -> str:
        """The command that plays an operator; kept when it asks about nothing that can change."""
        game, facts = self._loaded(), self._facts
        known = game.commands.get(operator)
        if known is not None:
            return known
        action, binding = game.binding(operator)
        scope = game.grammar.scope(binding, facts)
        command = game.grammar.derive(game.actions[action].template, scope)
        command = command.format(**game.names)
        if not any(predicate.removeprefix("not_") in game.fluent for predicate in scope.touched):
            game.commands[operator] = command
        return command

    def _loaded(self) -> LoadedGame:
        if self._game is None:
            raise EnvError("load must come before reset and step")
        return self._game
