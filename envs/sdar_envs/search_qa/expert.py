"""A scripted player for generated worlds that sees no more than the agent does, and worse ones that lack a skill."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from sdar_envs.base import EnvError, EpisodeView
from sdar_envs.search_qa.env import passages
from sdar_envs.search_qa.world.language import Relation
from sdar_envs.search_qa.world.read import Chain, Notes, Plan, read_question, take_notes

_UNKNOWN = "unknown"


@dataclass(frozen=True)
class _Need:
    """A fact that is missing: `relation` of `name`, or with `inverse` the subject that has `name`."""

    name: str
    relation: Relation
    inverse: bool = False


class Expert:
    """Fair: it knows how the world speaks, the question, and what its own searches brought; no index, no answers.

    It takes the question apart into facts, searches for the first one that is missing (``<name> <relation>``, then
    other words for it), reads the passages about that name, and answers when nothing is missing or when the last turn
    has come. What keeps it below 100 % are searches that do not find a passage and chains that outlast the turns.

    `act` depends on the view alone (with a history as long as the episode), so it can label states that another player
    reached.

    Args:
        seed: of the random choices; an episode's choices depend on the seed and the question only.
        max_steps: turns of an episode, as the environment has them.
        early_answer: probability per turn of answering with what was found last, as one does who does not see that
            the question needs another fact.
        whole_question: probability per turn of searching the whole question again instead of the missing fact.

    Raises:
        EnvError: a probability outside 0..1, or a question that is not of a generated world.
    """

    def __init__(
        self, seed: int = 0, *, max_steps: int = 4, early_answer: float = 0.0, whole_question: float = 0.0
    ) -> None:
        for name, value in (("early_answer", early_answer), ("whole_question", whole_question)):
            if not 0.0 <= value <= 1.0:
                raise EnvError(f"{name} is {value}; it is a probability between 0 and 1")
        self.seed, self.max_steps = seed, max_steps
        self.early_answer, self.whole_question = early_answer, whole_question

    def act(self, view: EpisodeView) -> str:
        """The action to play now: one search or one answer."""
        plan = read_question(view.task_description)
        if plan is None:
            raise EnvError(f"{view.task_description!r} is no question of a generated world; the expert cannot read it")
        notes = take_notes(passage for text in _observed(view) for passage in passages(text))
        result, need = _solve(plan, notes)
        rng = Random(f"{self.seed}/{view.task_description}/{len(view.history)}")
        careless, repeats = rng.random() < self.early_answer, rng.random() < self.whole_question
        if need is None or (careless and view.history) or len(view.history) + 1 >= self.max_steps:
            return f"<answer>{result or _UNKNOWN}</answer>"
        if repeats:
            return f"<search>{view.task_description}</search>"
        asked = {action for _, action in view.history}
        searches = (f"<search>{query}</search>" for query in _queries(need))
        return next((search for search in searches if search not in asked), f"<answer>{result or _UNKNOWN}</answer>")


def _observed(view: EpisodeView) -> list[str]:
    return [observation for observation, _ in view.history] + [view.observation]


def _solve(plan: Plan, notes: Notes) -> tuple[str, _Need | None]:
    """The answer if the notes hold it, else the best guess and what is missing first."""
    ends = []
    for chain in plan.chains:
        end, need = _follow(chain, notes)
        if need is not None:
            guess = name_of(plan.chains[0].start, notes) if plan.compare == "first" else "no" if plan.compare else end
            return guess, need
        ends.append(end)
    if plan.compare == "same":
        return ("yes" if ends[0] == ends[1] else "no"), None
    if plan.compare == "first":
        return plan.chains[0 if int(ends[0]) < int(ends[1]) else 1].start, None
    return ends[0], None


def _follow(chain: Chain, notes: Notes) -> tuple[str, _Need | None]:
    """The end of a chain; or the last thing found on it (empty at its start) and the missing fact."""
    here, found = name_of(chain.start, notes), ""
    for relation in chain.relations:
        inverse = chain.inverse and relation is chain.relations[-1]
        value = notes.subject(relation, here) if inverse else notes.objects.get((here, relation.name), "")
        if not value:
            return found, _Need(here, relation, inverse)
        here = found = value
    return found, None


def name_of(name: str, notes: Notes) -> str:
    """The proper name of something, if a passage explained its other name."""
    return notes.names.get(name, name)


def _queries(need: _Need) -> list[str]:
    """Ways to search for a fact: the name with the words that would tell it, then the name alone."""
    if need.inverse:
        told = [need.relation.back, *need.relation.sentences]
    else:
        told = list(need.relation.sentences)
    words = [re.sub(r"\W+", " ", sentence.format(s="", o="")).strip() for sentence in told]
    return [*(f"{need.name} {text}" for text in words), need.name]
