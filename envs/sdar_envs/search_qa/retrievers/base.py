"""What a search engine is to the environment, the server and the benchmarks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sdar_envs.base import EnvError, EnvUnreachable


class RetrieverError(EnvError):
    """A search could not be answered, or an engine could not be opened; the message says what to do."""


class RetrieverAway(RetrieverError, EnvUnreachable):
    """A search engine elsewhere gave no answer, however often it was asked."""


@dataclass(frozen=True)
class Hit:
    """One passage found.

    Attributes:
        id: the passage's id in its corpus.
        contents: its text, the quoted title in the first line.
        score: higher is better; scales differ from engine to engine.
    """

    id: str
    contents: str
    score: float


class Retriever(ABC):
    """A search engine; opened by name through `sdar_envs.search_qa.retrievers.open_retriever`."""

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def open(cls, config: Mapping[str, Any]) -> Retriever:
        """Open by the mapping under ``env.search_qa.retriever`` without ``engine``.

        Raises:
            RetrieverError: a key is unknown or missing, or what it names cannot be used.
        """

    @abstractmethod
    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """The best passages of each query, best first, at most `k`; fewer where no more match at all.

        Raises:
            RetrieverError: the search cannot be answered.
        """

    def close(self) -> None:  # noqa: B027 - most engines hold nothing
        """Free what the engine holds; safe to call twice."""


def settings(name: str, defaults: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """`defaults` overridden by `config`; `RetrieverError` for unknown keys."""
    if unknown := sorted(set(config) - set(defaults)):
        raise RetrieverError(f"unknown keys of retriever {name}: {', '.join(unknown)}; known: {', '.join(defaults)}")
    return {**defaults, **config}


def missing_package(package: str, extra: str) -> RetrieverError:
    """The error for an engine whose package is not installed."""
    return RetrieverError(f"the package {package} is not installed: pip install 'sdar-envs[{extra}]'")
