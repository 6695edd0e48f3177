"""WebShop in the lab: catalogues with one kind of product in each category, and one plan for each category."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar

from sdar_envs.base import EnvError, EpisodeView, TaskRef
from sdar_envs.webshop import TASK_TYPES
from sdar_envs.webshop.env import SEARCH_ACTION
from sdar_envs.webshop.expert import read_wish
from sdar_envs.webshop.generate import Knobs, generate_catalogue
from sdar_envs.webshop.pages import BACK, BUY, PREVIOUS, SEARCH, SEPARATOR
from sdar_envs.webshop.words import KINDS

from sdar_verl.lab.config import LabConfig, PlayConfig, Stage
from sdar_verl.lab.envs.base import LabEnv, Player, World
from sdar_verl.lab.prompts import TAGS

_BACK, _BUY, _PREVIOUS, _SEARCH = (f"click[{text.lower()}]" for text in (BACK, BUY, PREVIOUS, SEARCH))
_GAMES = "games.json"  # beside the catalogue of training runs: what it was made for
_GOALS_EACH = 2.5  # goals that a product has at least, on average; four where it is asked for at all
_CATALOGUES = 10_000  # seeds of catalogues that belong to one seed of the lab; unseen ones take the second half


@dataclass(frozen=True)
class Catalogues:
    """Attributes:
    products: of one catalogue.
    goals: most goals taken from one catalogue; categories take turns.
    knobs: the generator's.
    """

    products: int
    goals: int
    knobs: Knobs


_EASY = Knobs(kinds=1, axes=(2, 2), values=(2, 2), wishes=(1, 1), twins=0.0, filler=0, id_words=30)


@dataclass(frozen=True)
class WebshopPlay(PlayConfig):
    """Attributes:
    products, goals: see `Catalogues`.
    """

    task_types: tuple[str, ...] = TASK_TYPES
    max_steps: int = 8
    products: int = 120
    goals: int = 120

    @property
    def knobs(self) -> Catalogues:
        return Catalogues(self.products, self.goals, _EASY)


@dataclass(frozen=True)
class WebshopLab(LabConfig):
    """A prompt shows the last step, which tells what was chosen on a product's page.

    Attributes:
        products, goals: see `Catalogues`.
        last_right, last_wrong, last_none, last_plan: a third stage, see `Stage`: after two the model knew as well
            without a skill as with the right one what to do.
    """

    env_name: ClassVar[str] = "webshop"

    train_games: int = 2000
    max_steps: int = 8
    history_length: int = 1
    skills: str = "webshop_tiny"
    vocab: int = 1400
    max_positions: int = 640
    products: int = 120
    goals: int = 120
    last_right: float = 0.08
    last_wrong: float = 0.08
    last_none: float = 0.07
    last_plan: float = 0.75

    @property
    def stages(self) -> tuple[Stage, ...]:
        last = Stage(self.last_right, self.last_wrong, self.last_none, self.last_plan, self.random_action)
        return (*super().stages, last)

    @property
    def knobs(self) -> Catalogues:
        return Catalogues(self.products, self.goals, _EASY)

    @property
    def env(self) -> dict[str, Any]:
        return {
            "max_steps": self.max_steps,
            "history_length": self.history_length,
            "thinking": False,
            "instructions": False,
            "history_pages": False,
        }


_NOUNS = {kind.query: kind.noun for kinds in KINDS.values() for kind in kinds[: _EASY.kinds]}  # as tasks, as names say


@dataclass(frozen=True)
class _Plan:
    """How to buy something of one category: what it is called and which options to choose."""

    category: str
    phrases: tuple[str, ...] = field(init=False)
    nouns: tuple[str, ...] = field(init=False)
    options: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        kinds = KINDS[self.category][: _EASY.kinds]
        object.__setattr__(self, "phrases", tuple(kind.query for kind in kinds))
        object.__setattr__(self, "nouns", tuple(kind.noun for kind in kinds))
        object.__setattr__(self, "options", frozenset(name for kind in kinds for name, _ in kind.axes))

    def act(self, view: EpisodeView) -> str:
        """Search, open the first product that may be meant, choose what is wished and known here, buy.

        Meant is what the plan or the task names; anything else is left again.
        """
        wish, actions = read_wish(view.task_description), view.admissible_actions
        wanted = {*self.nouns, *(noun for phrase, noun in _NOUNS.items() if phrase in wish.words)}
        if _BUY in actions:
            if not _holds(view.observation, wanted):
                return _BACK
            chosen = [f"click[{value}]" for name, value in wish.options if name in self.options]
            offered = [action for action in chosen if action in actions]
            last = view.history[-1][1] if view.history else ""
            left = offered[offered.index(last) + 1 :] if last in offered else offered
            return left[0] if left else _BUY
        if _SEARCH in actions:
            values = [value for _, value in wish.options]
            return _search(" ".join([self._wording(wish.words), *values]))
        if _PREVIOUS in actions:
            return _PREVIOUS
        return next((f"click[{number}]" for number, name in _listed(view) if _holds(name, wanted)), _BACK)

    def _wording(self, words: str) -> str:
        """`words` with this plan's product in place of the one that they name."""
        if any(phrase in words for phrase in self.phrases):
            return words
        for phrase in _NOUNS:
            words = words.replace(phrase, self.phrases[0])
        return words


_PLANS = {category: _Plan(category) for category in TASK_TYPES}


class _Player(Player):
    def plans(self, view: EpisodeView) -> dict[str, str]:
        return {category: plan.act(view) for category, plan in _PLANS.items()}

    def can(self, view: EpisodeView) -> tuple[str, ...]:
        """Where one can search: the searches of all plans."""
        if _SEARCH in view.admissible_actions:
            return tuple(dict.fromkeys(self.plans(view).values()))
        return tuple(view.admissible_actions)


def _holds(text: str, words: Collection[str]) -> bool:
    """Whether a product's name or page holds one of the words."""
    return not set(words).isdisjoint(text.lower().replace(",", " ").split())


def _search(query: str) -> str:
    """With a space before the words, so that they are the very tokens that they are in the task."""
    return f"search[ {query.lower()}]"


def _listed(view: EpisodeView) -> list[tuple[str, str]]:
    """Products of a results page: their numbers, as they are clicked, and their names."""
    texts = view.observation.split(SEPARATOR)
    return [
        (text.lower(), texts[place + 1])
        for place, text in enumerate(texts[:-1])
        if re.fullmatch(r"B0[0-9A-Z]{8}", text) and f"click[{text.lower()}]" in view.admissible_actions
    ]


class _Webshop(LabEnv):
    name = "webshop"
    config = WebshopLab()
    play = WebshopPlay()
    tags = (*TAGS, "' [SEP] '", "B0", "click[b0")  # between texts of a page; what every product's id begins with
    answer_tokens = 40
    packages = ("thefuzz",)
    valid_split = "eval"

    def worlds(self, root: Path, split: str, number: int, seed: int, knobs: Catalogues) -> list[World]:
        """As many catalogues as it takes, with a seed each; none is used in two splits."""
        first = seed * _CATALOGUES + (_CATALOGUES // 2 if "unseen" in split else 0)
        found: list[World] = []
        left = number
        while left > 0:
            own = first + len(found)
            folder = generate_catalogue(root / f"{own}", knobs.products, own, knobs.knobs)
            settings = {"data_root": str(folder), "cache_dir": str(root / "cache"), "seed": own}
            every = self.family.tasks({**settings, "test_size": 0, "eval_size": 0}, "train")
            tasks = _in_turn(every)[: min(left, knobs.goals)]
            found.append(World(tasks, settings))
            left -= len(tasks)
        return found

    def make_games(self, folder: Path, splits: Mapping[str, int], seed: int) -> None:
        """One catalogue. Goals of different splits differ but may be met by one product, as in WebShop's own splits."""
        number, own = sum(splits.values()), seed * _CATALOGUES
        products = max(self.play.products, math.ceil(number / _GOALS_EACH))
        inputs = json.loads(json.dumps({"seed": seed, "splits": dict(splits), "knobs": asdict(self.play.knobs)}))
        made = folder / _GAMES
        if made.is_file() and json.loads(made.read_text(encoding="utf-8")) != inputs:
            raise EnvError(f"{folder} holds games made from other inputs; choose another folder")
        generate_catalogue(folder / "catalogue", products, own, self.play.knobs.knobs)
        made.write_text(json.dumps(inputs) + "\n", encoding="utf-8")
        for split, wanted in splits.items():
            if (found := len(self.family.tasks(self.game_settings(folder), split))) < wanted:
                raise EnvError(f"a catalogue of {products} products gave {found} of {wanted} goals for {split}")

    def game_settings(self, folder: Path) -> dict[str, Any]:
        if not (folder / _GAMES).is_file():
            raise EnvError(f"{folder} holds no games of the lab yet; they are made before a run's settings are")
        splits = json.loads((folder / _GAMES).read_text(encoding="utf-8"))["splits"]
        return {
            "data_root": str(folder / "catalogue"),
            "cache_dir": str(folder / "cache"),
            "test_size": 0,
            "eval_size": splits[self.valid_split],
            "train_size": splits["train"],
        }

    def player(self, view: EpisodeView) -> Player:
        return _Player()

    def understands(self, action: str, admissible: Sequence[str]) -> bool:
        """Any search will do where there is a search bar."""
        searches = SEARCH_ACTION in admissible and re.fullmatch(r"search\[.+\]", action)
        return bool(searches) or action in admissible

    def sample_views(self) -> Sequence[EpisodeView]:
        task = "Find me x with color: red"
        start = f"WebShop [SEP] Instruction: [SEP] {task} [SEP] Search"
        page = f"Instruction: [SEP] {task} [SEP] Back to Search [SEP] Page 1 (Total results: 0) [SEP] Next >"
        first = EpisodeView(task, start, [SEARCH_ACTION, "click[search]"])
        return first, EpisodeView(task, page, ["click[back to search]"], [(start, "search[x red]")])


def _in_turn(tasks: Sequence[TaskRef]) -> list[TaskRef]:
    """The same tasks, their types in turn as long as there are any."""
    by_type: dict[str, list[TaskRef]] = defaultdict(list)
    for task in tasks:
        by_type[task.task_type].append(task)
    rounds = zip_longest(*(by_type[task_type] for task_type in sorted(by_type)))
    return [task for one in rounds for task in one if task is not None]


LAB = _Webshop()
