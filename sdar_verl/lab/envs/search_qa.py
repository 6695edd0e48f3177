"""Search-QA in the lab: small made-up worlds with a page for each name, and one plan for each type of question."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from sdar_envs.base import EnvError, EpisodeView
from sdar_envs.search_qa import TASK_TYPES
from sdar_envs.search_qa.env import passages
from sdar_envs.search_qa.generate import generate
from sdar_envs.search_qa.world.knobs import WorldKnobs
from sdar_envs.search_qa.world.read import Notes, Plan, read_question, take_notes

from sdar_verl.lab.config import LabConfig, PlayConfig
from sdar_verl.lab.envs.base import LabEnv, Player, World

_ENGINE = "bm25s"
_SPLIT = "train"  # of every world: what the lab keeps apart are the worlds
_ASKED = tuple(name for name in TASK_TYPES if name != "comparison")
_WORLDS = 10_000  # seeds of worlds that belong to one seed of the lab; unseen ones take the second half


@dataclass(frozen=True)
class Worlds:
    """Attributes:
    questions: most questions asked about one world; their types take turns.
    knobs: the generator's.
    """

    questions: int
    knobs: WorldKnobs


def _easy(people: int, words: int, task_types: tuple[str, ...]) -> WorldKnobs:
    """One page for each name that holds all that is told of it, and nothing else."""
    return WorldKnobs(
        people=people,
        namesakes=5,
        words=words,
        task_types=task_types,
        facts_per_passage=10,
        mentions=0,
        fillers=0,
        backlinks=1.0,
        alias_questions=0.0,
        max_hops=2,
    )


@dataclass(frozen=True)
class SearchQaPlay(PlayConfig):
    """Attributes:
    task_types: without comparisons, which a model of this size can only guess.
    people, words, questions: see `WorldKnobs` and `Worlds`.
    """

    task_types: tuple[str, ...] = _ASKED
    max_steps: int = 4
    people: int = 120
    words: int = 24
    questions: int = 120

    @property
    def knobs(self) -> Worlds:
        return Worlds(self.questions, _easy(self.people, self.words, self.task_types))


@dataclass(frozen=True)
class SearchQaLab(LabConfig):
    """A prompt shows the whole episode: all its searches and what they found.

    Attributes:
        people, words, questions: see `WorldKnobs` and `Worlds`.
        topk: passages that a search finds.
        task_types: those asked in the fit; as in the play.
    """

    env_name: ClassVar[str] = "search_qa"

    train_games: int = 12_000
    max_steps: int = 4
    history_length: int = 4
    skills: str = "search_qa_tiny"
    noises: tuple[float, ...] = (0.0, 0.3)
    play_right: float = 0.9
    play_wrong: float = 0.5
    play_none: float = 0.5
    vocab: int = 1400
    kv_heads: int = 4
    max_positions: int = 640
    people: int = 120
    words: int = 24
    questions: int = 120
    topk: int = 1
    task_types: tuple[str, ...] = _ASKED

    @property
    def knobs(self) -> Worlds:
        return Worlds(self.questions, _easy(self.people, self.words, self.task_types))

    @property
    def env(self) -> dict[str, Any]:
        return {
            "max_steps": self.max_steps,
            "history_length": self.history_length,
            "topk": self.topk,
            "thinking": False,
            "instructions": False,
        }


@dataclass(frozen=True)
class _Known:
    """What can be told from a prompt.

    Attributes:
        asked: the question taken apart.
        notes: what the searches brought.
        searched: names searched for so far.
        last: whether this turn is the last one.
    """

    asked: Plan
    notes: Notes
    searched: frozenset[str]
    last: bool

    @property
    def start(self) -> str:
        """The first name in the question; also the answer of those who have no better one."""
        return self.asked.chains[0].start

    def first(self) -> str:
        """What the question's first fact says, read from its subject's side or from its object's; empty if unknown."""
        chain = self.asked.chains[0]
        return self.subject() if chain.inverse else self.object(self.start, 0)

    def object(self, name: str, place: int) -> str:
        """The object of `name` for the question's relation number `place`; empty if there is none or it is unknown."""
        relations = self.asked.chains[0].relations
        return self.notes.objects.get((name, relations[place].name), "") if place < len(relations) else ""

    def subject(self) -> str:
        """What has the question's first name as its object; empty if unknown."""
        return self.notes.subject(self.asked.chains[0].relations[0], self.start)


def _fact(known: _Known) -> str:
    return known.subject()


def _attribute(known: _Known) -> str:
    return "" if known.asked.chains[0].inverse else known.first()


def _bridge(known: _Known) -> str:
    middle = known.first()
    return known.object(middle, 1) if middle else ""


def _comparison(known: _Known) -> str:
    """The start whose year is smaller, or whether both ends are the same."""
    ends = [known.notes.objects.get((chain.start, chain.relations[0].name), "") for chain in known.asked.chains]
    if len(ends) < 2 or not all(ends):
        return ""
    if known.asked.compare == "same":
        return "yes" if ends[0] == ends[1] else "no"
    return known.asked.chains[0 if int(ends[0]) < int(ends[1]) else 1].start


def _starts(known: _Known) -> list[str]:
    return [chain.start for chain in known.asked.chains]


@dataclass(frozen=True)
class _Plan:
    """Attributes:
    names: to search for, in order; empty texts are not known yet, or never will be.
    answer: empty if there is none.
    """

    names: Callable[[_Known], list[str]]
    answer: Callable[[_Known], str]


_PLANS = {
    "fact": _Plan(lambda known: [known.start], _fact),
    "attribute": _Plan(lambda known: [known.start], _attribute),
    "bridge": _Plan(lambda known: [known.start, known.first()], _bridge),
    "comparison": _Plan(_starts, _comparison),
}


def _act(task_type: str, known: _Known) -> str:
    """Search for the names that the plan of `task_type` wants, then answer; without an answer, with the first name.

    So a plan of another type than the question's ends in a wrong answer, or never looks for the right one.
    """
    plan = _PLANS[task_type]
    left = [name for name in plan.names(known) if name and name not in known.searched]
    if left and not known.last:
        return f"<search>{left[0]}</search>"
    return f"<answer>{plan.answer(known) or known.start}</answer>"


class _Player(Player):
    def plans(self, view: EpisodeView) -> dict[str, str]:
        known = _known(view)
        return {task_type: _act(task_type, known) for task_type in TASK_TYPES}

    def can(self, view: EpisodeView) -> tuple[str, ...]:
        """Searches for every name known so far and, after a search, answers with them."""
        known = _known(view)
        names = dict.fromkeys([*_starts(known), *known.notes.objects.values()])
        answers = [f"<answer>{name}</answer>" for name in names] if view.history else []
        return (*(f"<search>{name}</search>" for name in names), *answers)


def _known(view: EpisodeView) -> _Known:
    asked = read_question(view.task_description)
    if asked is None:
        raise EnvError(f"{view.task_description!r} is no question of a generated world")
    seen = [observation for observation, _ in view.history] + [view.observation]
    searched = frozenset(action.removeprefix("<search>").removesuffix("</search>") for _, action in view.history)
    notes = take_notes(passage for text in seen for passage in passages(text))
    return _Known(asked, notes, searched, len(view.history) + 1 >= LAB.config.max_steps)


class _SearchQa(LabEnv):
    name = "search_qa"
    config = SearchQaLab()
    play = SearchQaPlay()
    tags = (
        "<think>", "</think>", "<search>", "</search>", "<answer>", "</answer>", "<information>", "</information>"
    )  # fmt: skip
    packages = ("bm25s", "pystemmer")

    def worlds(self, root: Path, split: str, number: int, seed: int, knobs: Worlds) -> list[World]:
        """As many worlds as it takes, with a seed each; none is used in two splits."""
        first = seed * _WORLDS + (_WORLDS // 2 if "unseen" in split else 0)
        found: list[World] = []
        for own, start in enumerate(range(0, number, knobs.questions), first):
            folder = root / f"{own}"
            asked = min(knobs.questions, number - start)
            generate(folder, {_SPLIT: asked}, own, knobs.knobs, _ENGINE)
            retriever = {"engine": _ENGINE, "index": str(folder / "index")}
            settings = {"data_root": str(folder), "retriever": retriever}
            found.append(World(self.family.tasks(settings, _SPLIT), settings))
        return found

    def make_games(self, folder: Path, splits: Mapping[str, int], seed: int) -> None:
        """One world; no question of one split starts from a thing that a question of another split starts from."""
        made = folder / "world.json"
        knobs, seed = self.play.knobs.knobs, seed * _WORLDS
        if made.is_file():
            wanted = json.loads(json.dumps({"seed": seed, "knobs": asdict(knobs), "splits": dict(splits)}))
            if json.loads(made.read_text(encoding="utf-8")) != wanted:
                raise EnvError(f"{folder} holds a world made from other inputs; choose another folder")
            return
        generate(folder, splits, seed, knobs, _ENGINE)

    def game_settings(self, folder: Path) -> dict[str, Any]:
        return {"data_root": folder, "retriever.engine": _ENGINE, "retriever.index": folder / "index"}

    def player(self, view: EpisodeView) -> Player:
        return _Player()

    def answer(self, action: str) -> str:
        """With a space behind the tag, so that a name's words are the very tokens that they are in the prompt."""
        return action.replace(">", "> ", 1)

    def understands(self, action: str, admissible: Sequence[str]) -> bool:
        return bool(action)  # what the parser reads is a search or an answer, else nothing

    def sample_views(self) -> Sequence[EpisodeView]:
        first = EpisodeView("Who is x?", "Who is x?", [])
        later = EpisodeView("Who is x?", "<information>y</information>", [], [("Who is x?", "<search>x</search>")])
        return first, later


LAB = _SearchQa()
