"""Exact match and F1 of short answers, normalised as open-domain question answering does it."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
MOST_TAGS = 10  # an episode with more answer tags than this earns a quarter


@dataclass(frozen=True)
class Score:
    """What one answer earned.

    Attributes:
        answer: the text that was judged; None when there was no answer.
        exact: 1.0 if it equals one of the targets after normalisation, else 0.0.
        f1: token overlap with the closest target, in [0, 1].
        reward: the contract's score: `exact`, or a quarter of it with more than `MOST_TAGS` answer tags.
    """

    answer: str | None
    exact: float
    f1: float
    reward: float


def normalize(text: str) -> str:
    """Lower case, without ASCII punctuation, without the articles a, an and the, single blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, targets: Iterable[str]) -> float:
    """1.0 if `answer` equals one of `targets` after `normalize`, else 0.0."""
    wanted = normalize(answer)
    return float(any(normalize(target) == wanted for target in targets))


def f1(answer: str, targets: Iterable[str]) -> float:
    """Harmonic mean of token precision and recall against the closest of `targets`, in [0, 1].

    As in HotpotQA's evaluation, a yes, no or noanswer on either side counts only when both are the same.
    """
    return max((_f1(normalize(answer), normalize(target)) for target in targets), default=0.0)


def _f1(answer: str, target: str) -> float:
    if answer != target and {answer, target} & {"yes", "no", "noanswer"}:
        return 0.0
    ours, theirs = answer.split(), target.split()
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0


def last_answer(history: str) -> str | None:
    """The text of the last complete ``<answer>..</answer>`` of `history`, stripped; None when there is none."""
    found = _ANSWER.findall(history)
    return found[-1].strip() if found else None


def score(history: str, targets: Sequence[str]) -> Score:
    """Judge a whole episode: its actions and observations in order, joined without a separator."""
    answer = last_answer(history)
    if answer is None:
        return Score(None, 0.0, 0.0, 0.0)
    exact = exact_match(answer, targets)
    crowded = max(history.count("<answer>"), history.count("</answer>")) > MOST_TAGS
    return Score(answer, exact, f1(answer, targets), exact / 4 if crowded else exact)


def holds_answer(text: str, targets: Iterable[str]) -> bool:
    """Whether one of `targets` stands in `text` as whole words, both normalised: the usual test of a passage."""
    words = f" {normalize(text)} "
    return any(f" {target} " in words for target in map(normalize, targets) if target)
