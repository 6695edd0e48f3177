"""A game ready to play: translated problem, initial facts, entities and texts. Made once, shared by all engines."""

from __future__ import annotations

import ctypes
import gc
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fast_downward
from tatsu.exceptions import ParseException
from textworld.generator.game import EntityInfo
from textworld.logic import Type, TypeHierarchy

from sdar_envs.alfworld.derivation import Grammar, read_grammar
from sdar_envs.alfworld.facts import Arguments, Binding, Facts, Placeholder, Signature, TypeTree
from sdar_envs.alfworld.games import BrokenGame, read_game
from sdar_envs.alfworld.packages import import_alfworld, kept_arguments
from sdar_envs.base import EnvError


class LoadedGame:
    """Everything about a game that play does not change.

    Attributes:
        facts: the facts of the initial state.
        grammar: the game's texts.
        actions: command template and feedback text by action name.
        names: what the player calls an entity, by its id.
        fluent: predicates that actions can change; texts that ask about none of them never change.
        commands: ``operator name -> command``, filled in during play for commands that never change.
    """

    def __init__(self, path: str, library: ctypes.CDLL) -> None:
        data = read_game(path)
        task, sas = _translate(data["pddl_domain"], data["pddl_problem"])
        problem = sas.encode("utf-8")
        self._problem = zlib.compress(problem, level=1)  # a fifteenth of its 1 to 2 MB
        self._types_by_name = {entity.name: entity.type_name for entity in task.objects}
        self._parameters: dict[str, tuple[Placeholder, ...]] = {
            action.name: tuple((p.name.strip("?"), p.type_name) for p in action.parameters) for action in task.actions
        }
        self.fluent = {e.literal.predicate for a in task.actions for e in a.effects} | {a.name for a in task.axioms}
        library.load_sas(problem)
        self.facts = Facts(self._initial_facts(task, library), TypeTree(_type_hierarchy(task)))
        self.actions, productions = read_grammar(data["grammar"])
        entities = _entities(self.facts)
        self.grammar = Grammar(productions, entities)
        self.names = {name: entity.name for name, entity in entities.items()}
        self.commands: dict[str, str] = {}

    def start(self, library: ctypes.CDLL) -> None:
        """Put the library into the game's initial state."""
        library.load_sas(zlib.decompress(self._problem))

    def binding(self, operator: str) -> tuple[str, Binding]:
        """``name argument ...`` as the action's name and its arguments by placeholder."""
        name, *arguments = operator.split()
        return name, dict(zip(self._parameters[name], arguments))  # noqa: B905 - the library may add arguments

    def fact(self, atom: str) -> tuple[Signature, Arguments]:
        """The library's ``Atom name(a, b)`` or ``NegatedAtom name(a, b)`` as signature and arguments."""
        kind, rest = atom.split(" ", 1)
        name, listed = rest[:-1].split("(", 1)
        arguments = tuple(argument for argument in listed.split(", ") if argument)
        types = tuple(self._types_by_name[argument] for argument in arguments)
        return ("not_" + name if kind == "NegatedAtom" else name, types), arguments

    def _initial_facts(self, task: Any, library: ctypes.CDLL) -> dict[Signature, frozenset[Arguments]]:
        found: dict[Signature, set[Arguments]] = defaultdict(set)
        for item in task.init:
            if isinstance(item, fast_downward.translate.pddl.conditions.Atom):
                name, arguments = item.predicate, tuple(item.args)
                if name == "=":
                    continue
            else:  # a number is given to a function; distances and costs are no facts
                name, arguments = str(item.expression.value), tuple(item.fluent.args)
                if item.fluent.symbol == "total-cost" or name.isdigit():
                    continue
            found[name, tuple(self._types_by_name[a] for a in arguments)].add(arguments)
        atoms = (fast_downward.Atom * library.get_state_size())()
        library.get_state(atoms)
        for atom in atoms:
            signature, arguments = self.fact(atom.name)
            if not signature[0].startswith("not_"):
                found[signature].add(arguments)
        return {signature: frozenset(arguments) for signature, arguments in found.items()}


def prepare(path: str, library: ctypes.CDLL) -> LoadedGame:
    """The game at `path`; raises `EnvError` with the path when its file cannot be read, translated or parsed."""
    try:
        return LoadedGame(path, library)
    except BrokenGame as error:
        raise EnvError(f"{path}: {error}") from error
    except _refusals() as error:
        raise EnvError(f"{path} cannot be translated ({type(error).__name__}: {error})") from error


def _refusals() -> tuple[type[BaseException], ...]:
    """What translator and parsers raise on a text they cannot take; the translator even wants to end the process.

    Named only when needed: the translator's modules read `sys.argv` when they are imported.
    """
    from fast_downward.translate.pddl_parser.lisp_parser import ParseError

    return SystemExit, ParseError, ParseException, AssertionError, AttributeError, LookupError, TypeError, ValueError


class GameCache:
    """The last `size` games of this process, so that a group's episodes of one game load it once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._games: OrderedDict[str, LoadedGame] = OrderedDict()

    def get(self, path: str, make: Callable[[], LoadedGame]) -> LoadedGame:
        game = self._games.pop(path, None) or make()
        self._games[path] = game
        while len(self._games) > self._size:
            self._games.popitem(last=False)
        return game


def _type_hierarchy(task: Any) -> TypeHierarchy:
    types = TypeHierarchy()
    seen = set()
    for declared in task.types:
        if declared.name not in seen:
            seen.add(declared.name)
            types.add(Type(declared.name, declared.supertype_names))
    return types


def _entities(facts: Facts) -> dict[str, EntityInfo]:
    """All entities that occur in facts, with the names that ALFWorld shows (``fridge 1``)."""
    entities = {}
    for name, kind in facts.entities().items():
        entity = entities[name] = EntityInfo(name, kind)
        entity.definite, entity.indefinite = "the", "a"
    demangler = import_alfworld("alfworld.agents.utils.misc").Demangler(game_infos=entities)
    for entity in entities.values():
        entity.name = demangler.demangle_alfred_name(entity.id)
    return entities


def _translate(domain: str, problem: str) -> tuple[Any, str]:
    with _without_collector(), kept_arguments():
        return fast_downward.pddl2sas(domain, problem)


@contextmanager
def _without_collector() -> Iterator[None]:
    """The translator makes many objects and no cycles worth collecting: a fifth of its time is the collector's."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
