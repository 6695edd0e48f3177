"""How well and how fast an engine finds answers."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sdar_envs.base import EnvError
from sdar_envs.search_qa.questions import Question
from sdar_envs.search_qa.retrievers.base import Retriever
from sdar_envs.search_qa.scoring import holds_answer


@dataclass(frozen=True)
class Quality:
    """Attributes:
    n: questions.
    recall: share of questions for which one of the first `k` passages holds an accepted answer.
    by_source: the same for each data source.
    mean: mean of `by_source`, every source counting the same.
    """

    k: int
    n: int
    recall: float
    by_source: dict[str, float]
    mean: float


@dataclass(frozen=True)
class Speed:
    """Milliseconds of single queries, one after the other, and queries a second in batches.

    `cpu_ms` is this process's processor time of a single query (mean), which other work on the machine does not change
    much; behind a server it is the client's share.
    """

    p50_ms: float
    p99_ms: float
    cpu_ms: float
    batch: int
    batched_per_second: float


def quality(retriever: Retriever, questions: Sequence[Question], k: int = 3, batch: int = 64) -> Quality:
    """Search every question as it is asked and look for its answers; raises `EnvError` without questions."""
    if not questions:
        raise EnvError("there are no questions to measure with")
    hits: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, len(questions), batch):
        part = questions[start : start + batch]
        for question, found in zip(part, retriever.search([q.text for q in part], k), strict=True):
            hits[question.source].append(any(holds_answer(hit.contents, question.targets) for hit in found))
    by_source = {source: statistics.fmean(found) for source, found in sorted(hits.items())}
    every = [hit for found in hits.values() for hit in found]
    return Quality(k, len(every), statistics.fmean(every), by_source, statistics.fmean(by_source.values()))


def speed(retriever: Retriever, queries: Sequence[str], k: int = 3, batch: int = 64) -> Speed:
    """Time `queries`: each alone, then all again in batches; ten queries before that are not counted."""
    if len(queries) < 2:
        raise EnvError("give at least two queries to time")
    retriever.search(list(queries[:10]), k)
    single, cpu = [], time.process_time()
    for query in queries:
        start = time.perf_counter()
        retriever.search([query], k)
        single.append((time.perf_counter() - start) * 1e3)
    cpu_ms = (time.process_time() - cpu) / len(queries) * 1e3
    start = time.perf_counter()
    for first in range(0, len(queries), batch):
        retriever.search(list(queries[first : first + batch]), k)
    rate = len(queries) / (time.perf_counter() - start)
    cuts = statistics.quantiles(single, n=100, method="inclusive")
    return Speed(cuts[49], cuts[98], cpu_ms, batch, rate)
