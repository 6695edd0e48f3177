"""BM25 search over arrays that are memory-mapped and shared by all processes of a host; `index_build` makes them.

The index is a matrix of term weights stored by term (documents and scores of a term lie together), computed once:
k1 = 0.9, b = 0.4, document lengths rounded to Lucene's one-byte norms, single-precision weights, ties by
product id. In large indexes the most common terms also have a row with a score for every document, which is quicker to
add than a long list.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np

from sdar_envs.base import EnvError
from sdar_envs.webshop.analyser import analyse
from sdar_envs.webshop.records import map_array

_ARRAYS = ("terms", "starts", "docs", "scores", "ranks", "rows")
_RUN = 64  # documents


def term_key(term: str) -> int:
    """What the index stores instead of the term: 64 bits of its BLAKE2 hash (clashes are refused when building)."""
    return int.from_bytes(hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class SearchIndex:
    """Ranks documents for a query; made by `build`, opened by `open`.

    Args:
        arrays: ``terms`` sorted keys (V), ``starts`` (V + 1) into ``docs`` and ``scores`` (P), ``ranks`` the
            place of each document among all ids (N), which breaks ties, ``rows`` the scores of common terms (R, N).
        common: the terms that ``rows`` belong to, as places in ``terms`` (R).
    """

    def __init__(self, arrays: dict[str, np.ndarray], common: np.ndarray) -> None:
        self._terms, self._starts, self._docs, self._scores, self._ranks, self._rows = (
            arrays[name] for name in _ARRAYS
        )
        self._row_of = {place: row for row, place in enumerate(common.tolist())}
        self.size = len(self._ranks)

    @classmethod
    def open(cls, folder: Path) -> SearchIndex:
        """Map the index in `folder`; raises `EnvError` if it is not whole."""
        try:
            arrays = {name: map_array(folder / f"{name}.npy") for name in _ARRAYS}
            common = np.load(folder / "common.npy")
        except (OSError, ValueError) as error:
            raise EnvError(f"{folder} holds no search index ({error}); remove the folder and prepare again") from error
        return cls(arrays, common)

    def search(self, query: str, count: int) -> list[int]:
        """The `count` best documents that hold any term of `query`, best first."""
        totals = np.zeros(self.size)
        for term, times in Counter(analyse(query)).items():
            place = int(np.searchsorted(self._terms, np.uint64(term_key(term))))
            if place < len(self._terms) and int(self._terms[place]) == term_key(term):
                self._add(place, np.float32(times), totals)
        finals = totals.astype(np.float32)
        candidates = np.flatnonzero(finals >= max(_bound(finals, count), np.nextafter(np.float32(0), np.float32(1))))
        order = np.lexsort((self._ranks[candidates], -finals[candidates]))
        return candidates[order][:count].tolist()

    def _add(self, place: int, times: np.float32, totals: np.ndarray) -> None:
        if place in self._row_of:
            scores = self._rows[self._row_of[place]]
            totals += scores if times == 1 else scores * times
            return
        start, end = int(self._starts[place]), int(self._starts[place + 1])
        scores = self._scores[start:end]
        totals[self._docs[start:end]] += scores if times == 1 else scores * times


def _bound(scores: np.ndarray, count: int) -> np.float32:
    """A number that at least `count` of `scores` reach, close to the largest such one.

    It is the `count`-th largest of the maxima of short runs, which is much cheaper than sorting all scores out.
    """
    runs = len(scores) // _RUN
    if runs < count:
        return np.float32(0)
    maxima = scores[: runs * _RUN].reshape(runs, _RUN).max(axis=1)
    return np.partition(maxima, -count)[-count]
