"""Exact match and F1 by data source: ``python -m sdar_envs.search_qa.report <val.jsonl> --questions <file>``.

Reads the episode records of a trainer: one JSON object a line with ``step``, ``task_id``, ``session``, ``failed`` and
``turns``, each turn with the ``observation`` before its ``action``. Nothing of the trainer is needed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdar_envs.base import EnvError
from sdar_envs.search_qa.questions import QuestionFile, open_file
from sdar_envs.search_qa.scoring import score


@dataclass(frozen=True)
class SourceScore:
    """Means over the episodes of one source, all in [0, 1] but `searches`.

    Attributes:
        episodes: how many; `failed` of them were lost and count as wrong.
        exact: exact match; f1: token overlap.
        answered: share that ended with an answer.
        searches: searches an episode.
    """

    episodes: int
    failed: int
    exact: float
    f1: float
    answered: float
    searches: float


@dataclass(frozen=True)
class Report:
    """One evaluation.

    Attributes:
        sources: by data source.
        exact, f1: means of the sources, each counting the same, as published averages are made.
        all: over all episodes.
    """

    step: int
    sources: dict[str, SourceScore]
    exact: float
    f1: float
    all: SourceScore


def read_episodes(path: str | Path) -> list[dict[str, Any]]:
    """The records of a file; where a resumed run wrote one again, the later one stands.

    Raises:
        EnvError: the file or a line of it cannot be read.
    """
    found: dict[tuple, dict[str, Any]] = {}
    number = 0
    try:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                number += 1
                record = json.loads(line)
                found[record["step"], record["task_id"], record["session"]] = record
    except OSError as error:
        raise EnvError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise EnvError(f"{path}, line {number}: no episode record ({error!r})") from error
    return list(found.values())


def report(episodes: Iterable[Mapping[str, Any]], questions: QuestionFile, step: int | None = None) -> Report:
    """Scores of one step, the last one by default.

    Raises:
        EnvError: there is no episode of that step, or one is not of these questions.
    """
    episodes = list(episodes)
    if step is None:
        step = max((episode["step"] for episode in episodes), default=-1)
    rows: dict[str, list[SourceScore]] = defaultdict(list)
    for episode in episodes:
        if episode["step"] == step:
            source, row = _one(episode, questions)
            rows[source].append(row)
    if not rows:
        raise EnvError(f"there are no episodes of step {step}")
    sources = {source: _mean(rows[source]) for source in sorted(rows)}
    return Report(
        step,
        sources,
        statistics.fmean(s.exact for s in sources.values()),
        statistics.fmean(s.f1 for s in sources.values()),
        _mean([row for found in rows.values() for row in found]),
    )


def _one(episode: Mapping[str, Any], questions: QuestionFile) -> tuple[str, SourceScore]:
    source, _, row = str(episode["task_id"]).rpartition("/")
    question = questions[int(row)] if row.isdigit() else None
    if question is None or question.source != source:
        raise EnvError(f"episode {episode['task_id']!r} is not of the questions in {questions.path}")
    turns = episode["turns"]
    after = [turn["observation"] for turn in turns[1:]] + [""]
    history = "".join(turn["action"] + observation for turn, observation in zip(turns, after, strict=True))
    searches = sum("<search>" in turn["action"] for turn in turns)
    if episode["failed"] is not None:
        return source, SourceScore(1, 1, 0.0, 0.0, 0.0, searches)
    judged = score(history, question.targets)
    return source, SourceScore(1, 0, judged.exact, judged.f1, float(judged.answer is not None), searches)


def _mean(rows: Sequence[SourceScore]) -> SourceScore:
    means = (statistics.fmean(getattr(row, name) for row in rows) for name in ("exact", "f1", "answered", "searches"))
    return SourceScore(len(rows), sum(row.failed for row in rows), *means)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sdar_envs.search_qa.report", description=__doc__)
    parser.add_argument("episodes", type=Path, help="a run's episodes/val.jsonl")
    parser.add_argument("--questions", type=Path, required=True, help="the parquet file that was played")
    parser.add_argument("--step", type=int, default=None, help="the last one by default")
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers to this file")
    args = parser.parse_args(argv)
    try:
        found = report(read_episodes(args.episodes), open_file(args.questions), args.step)
    except EnvError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"step {found.step}")
    print(f"{'source':<20}{'episodes':>9}{'failed':>8}{'exact':>8}{'f1':>8}{'answered':>10}{'searches':>10}")
    for name, row in [*found.sources.items(), ("all", found.all)]:
        print(f"{name:<20}{row.episodes:>9}{row.failed:>8}{row.exact:>8.3f}{row.f1:>8.3f}", end="")
        print(f"{row.answered:>10.3f}{row.searches:>10.2f}")
    print(f"{'mean of sources':<37}{found.exact:>8.3f}{found.f1:>8.3f}")
    if args.json:
        args.json.write_text(json.dumps(asdict(found), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
