"""BM25 as a sparse matrix (package bm25s): the fastest for corpora that fit into memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdar_envs.search_qa.corpus import PassageStore
from sdar_envs.search_qa.retrievers.base import RetrieverError, missing_package
from sdar_envs.search_qa.retrievers.local import LocalRetriever

_LANGUAGE = "english"


def _package() -> Any:
    try:
        import bm25s
    except ImportError as error:
        raise missing_package("bm25s", "search-qa") from error
    return bm25s


def _stemmer(stem: bool) -> Any:
    if not stem:
        return None
    try:
        import Stemmer
    except ImportError as error:
        raise missing_package("PyStemmer", "search-qa") from error
    return Stemmer.Stemmer(_LANGUAGE)


def _tokenizer(stem: bool) -> Any:
    """Words of two and more characters in lower case, without stop words; stems with the Snowball stemmer."""
    return _package().tokenization.Tokenizer(stopwords=_LANGUAGE, stemmer=_stemmer(stem))


class Bm25s(LocalRetriever):
    """Lucene's BM25 formula over word stems. Equal scores come in no fixed order.

    Building takes ``k1``, ``b`` and ``stem``; opening takes ``backend``: ``numpy``, or ``numba``, which answers large
    batches several times faster and compiles for some seconds first.
    """

    name = "bm25s"
    build_options = {"k1": 0.9, "b": 0.4, "stem": True}
    open_options = {"backend": "numpy"}

    def __init__(self, store: PassageStore, matrix: Any, stem: bool) -> None:
        super().__init__(store)
        self._matrix, self._stemmer = matrix, _stemmer(stem)
        tokenizer = _tokenizer(stem=False)
        self._split, self._stopwords = tokenizer.splitter, frozenset(tokenizer.stopwords)

    @classmethod
    def _build(cls, store: PassageStore, folder: Path, options: Mapping[str, Any]) -> None:
        tokenizer = _tokenizer(options["stem"])
        matrix = _package().BM25(k1=options["k1"], b=options["b"], method="lucene")
        texts = (passage.contents for passage in store)
        tokens = tokenizer.tokenize(texts, update_vocab=True, show_progress=False, length=len(store), return_as="tuple")
        matrix.index(tokens, show_progress=False)
        matrix.save(folder, show_progress=False)

    @classmethod
    def _load(cls, store: PassageStore, folder: Path, options: Mapping[str, Any]) -> Bm25s:
        backend = options["backend"]
        if backend not in ("numpy", "numba"):
            raise RetrieverError(f"unknown backend {backend!r} of bm25s; known: numpy, numba")
        matrix = _package().BM25.load(folder, mmap=backend == "numpy", show_progress=False)
        if backend == "numba":
            matrix.backend = "numba"
            matrix.activate_numba_scorer()
        return cls(store, matrix, options["stem"])

    def _positions(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        ids = [self._ids(query) for query in queries]
        found: list[list[tuple[int, float]]] = [[] for _ in queries]
        asked = [row for row, tokens in enumerate(ids) if tokens]
        if not asked:
            return found
        positions, scores = self._matrix.retrieve([ids[row] for row in asked], k=k, show_progress=False, n_threads=0)
        for row, where, worth in zip(asked, positions, scores, strict=True):
            keep = np.asarray(worth) > 0
            found[row] = [(int(p), float(s)) for p, s in zip(where[keep], worth[keep], strict=True)]
        return found

    def _ids(self, query: str) -> list[int]:
        """The known word stems of a query. The package's tokenizer would remember every word it is ever asked for."""
        words = [word for word in self._split(query.lower()) if word not in self._stopwords]
        known = self._matrix.vocab_dict
        return [known[stem] for stem in (self._stemmer.stemWords(words) if self._stemmer else words) if stem in known]


RETRIEVER = Bm25s
