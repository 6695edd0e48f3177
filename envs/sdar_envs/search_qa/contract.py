"""Search-R1's retrieval contract: what a request may ask and what its answer looks like, for both sides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sdar_envs.base import EnvError
from sdar_envs.search_qa.retrievers.base import Hit, RetrieverError


class BadRequest(EnvError):
    """The request is refused with this status; the message says what it may be."""

    def __init__(self, reason: str, status: int = 422) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class ServerLimits:
    """What one server takes on.

    Attributes:
        body_bytes: longest request body.
        queries: most queries of one request.
        query_chars: longest query; longer ones are refused, never cut.
        topk: most passages a query may ask for.
        waiting: most requests that wait or are answered at once; one more gets 503 with ``Retry-After``.
        body_seconds: time a client may take to send its body.
    """

    body_bytes: int = 4 * 2**20
    queries: int = 2048
    query_chars: int = 8192
    topk: int = 100
    waiting: int = 256
    body_seconds: float = 10.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise EnvError(f"the server's limit {name} must be a positive number, got {value!r}")


@dataclass(frozen=True)
class Search:
    """A checked request."""

    queries: list[str]
    topk: int
    return_scores: bool


def read_search(body: bytes, limits: ServerLimits, default_topk: int) -> Search:
    """Read ``{"queries": [...]}`` (Search-R1) or ``{"query": "..."}`` (SDAR), both with optional ``topk`` and
    ``return_scores`` (default true: without scores an answer loses its ``document`` level).

    Raises:
        BadRequest: the body is anything else, or exceeds a limit.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}", 400) from error
    if not isinstance(content, dict):
        raise BadRequest("the body must be a JSON object")
    if ("queries" in content) == ("query" in content):
        raise BadRequest("give exactly one of queries (a list of texts) and query (a text)")
    queries = content["queries"] if "queries" in content else content["query"]
    queries = [queries] if isinstance(queries, str) and "query" in content else queries
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        raise BadRequest("queries must be a list of texts, query one text")
    if len(queries) > limits.queries:
        raise BadRequest(f"{len(queries)} queries in one request; at most {limits.queries}", 413)
    longest = max(map(len, queries), default=0)
    if longest > limits.query_chars:
        raise BadRequest(f"a query of {longest} characters; at most {limits.query_chars}", 413)
    if any("\ud800" <= char <= "\udfff" for query in queries for char in query):
        raise BadRequest("a query holds half of a character (a lone surrogate)")
    topk = default_topk if content.get("topk") is None else content["topk"]
    if isinstance(topk, bool) or not isinstance(topk, int) or not 1 <= topk <= limits.topk:
        raise BadRequest(f"topk must be a whole number from 1 to {limits.topk}, got {topk!r:.100}")
    scores = True if content.get("return_scores") is None else content["return_scores"]
    if not isinstance(scores, bool):
        raise BadRequest("return_scores must be true or false")
    return Search(queries, topk, scores)


def answer(found: Sequence[Sequence[Hit]], return_scores: bool) -> dict[str, Any]:
    """The contract's answer: passages under ``document`` with their score, or the bare passages."""

    def item(hit: Hit) -> dict[str, Any]:
        document = {"id": hit.id, "contents": hit.contents}
        return {"document": document, "score": hit.score} if return_scores else document

    return {"result": [[item(hit) for hit in row] for row in found]}


def read_answer(content: bytes, queries: int, k: int, url: str) -> list[list[Hit]]:
    """Read what the server at `url` answered to so many queries; at most `k` passages of each are kept.

    Raises:
        RetrieverError: it is not the contract's; the message says what is wrong.
    """
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RetrieverError(f"the retriever at {url} answered no JSON: {beginning(content)}") from error
    result = answer.get("result") if isinstance(answer, dict) else None
    if not isinstance(result, list) or len(result) != queries or not all(isinstance(row, list) for row in result):
        raise RetrieverError(
            f"the retriever at {url} does not speak Search-R1's contract: for {queries} queries it answered "
            + beginning(content)
        )
    return [[_hit(item, url) for item in row[:k]] for row in result]


def _hit(item: Any, url: str) -> Hit:
    document = item.get("document") if isinstance(item, dict) else None
    contents = document.get("contents") if isinstance(document, dict) else None
    score = item.get("score", 0.0) if isinstance(item, dict) else None
    if not isinstance(contents, str) or isinstance(score, bool) or not isinstance(score, int | float):
        raise RetrieverError(
            f"the retriever at {url} answered a passage without document.contents and a score: {beginning(repr(item))}"
        )
    return Hit(str(document.get("id", "")), contents, float(score))


def beginning(content: bytes | str) -> str:
    """The first characters of an answer, for a message."""
    text = content.decode(errors="replace") if isinstance(content, bytes) else content
    return repr(text[:200])
