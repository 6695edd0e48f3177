"""BM25 as a sparse matrix (package bm25s): the fastest for corpora that fit into memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdar_envs.search_qa.corpus import PassageStore
from sdar_envs.search_qa.retrievers.base import missing_package
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
    """Lucene's BM25 formula over word stems; of equal scores the earlier passage comes first.

    Building takes ``k1``, ``b`` and ``stem``. The index is memory-mapped: processes on one machine share it.
    """

    name = "bm25s"
    build_options = {"k1": 0.9, "b": 0.4, "stem": True}

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
        matrix = _package().BM25.load(folder, mmap=True, show_progress=False)
        for name, part in matrix.scores.items():
            if isinstance(part, np.memmap):  # plain views of the same pages: each slice of a memmap costs more
                matrix.scores[name] = np.asarray(part)
        return cls(store, matrix, options["stem"])

    def _positions(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        return [self._one(query, k) for query in queries]

    def _one(self, query: str, k: int) -> list[tuple[int, float]]:
        """The best of the passages that match at all.

        The package ranks the zeros too, which takes most of its time, and ties come in no fixed order.
        """
        ids = self._ids(query)
        if not ids:
            return []
        scores = self._matrix.get_scores_from_ids(ids)
        rows = np.flatnonzero(scores)
        if len(rows) > k:
            rows = rows[scores[rows] >= np.partition(scores[rows], -k)[-k]]
        order = np.lexsort((rows, -scores[rows]))[:k]
        return [(int(row), float(scores[row])) for row in rows[order]]

    def _ids(self, query: str) -> list[int]:
        """The known word stems of a query. The package's tokenizer would remember every word it is ever asked for."""
        words = [word for word in self._split(query.lower()) if word not in self._stopwords]
        known = self._matrix.vocab_dict
        return [known[stem] for stem in (self._stemmer.stemWords(words) if self._stemmer else words) if stem in known]


RETRIEVER = Bm25s
