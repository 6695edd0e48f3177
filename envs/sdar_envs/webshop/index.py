"""BM25 search with Lucene's arithmetic, over arrays that are memory-mapped and shared by all processes of a host.

The index is a matrix of term weights stored by term (documents and scores of a term lie together), computed once:
k1 = 0.9, b = 0.4, document lengths rounded to Lucene's one-byte norms, single-precision weights, ties by
product id.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sdar_envs.base import EnvError
from sdar_envs.webshop.analyser import analyse
from sdar_envs.webshop.records import map_array

K1, B = np.float32(0.9), np.float32(0.4)
_ARRAYS = ("terms", "starts", "docs", "scores", "ranks")
_BLOCK = 20_000  # documents whose postings are sorted at a time
_RUN = 64  # documents


def term_key(term: str) -> int:
    """What the index stores instead of the term: 64 bits of its BLAKE2 hash (clashes are refused when building)."""
    return int.from_bytes(hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def length_byte(length: int) -> int:
    """Lucene's one-byte form of a document length (a float with four bits of mantissa, exact up to 40)."""
    if length < 0:
        raise ValueError(f"a length cannot be {length}")
    free = 255 - _to_int4(2**31 - 1)
    return length if length < free else free + _to_int4(length - free)


def byte_length(byte: int) -> int:
    """The document length that a norm byte stands for."""
    free = 255 - _to_int4(2**31 - 1)
    return byte if byte < free else free + _from_int4(byte - free)


def _to_int4(value: int) -> int:
    bits = value.bit_length()
    if bits < 4:
        return value
    shift = bits - 4
    return ((value >> shift) & 0x07) | ((shift + 1) << 3)


def _from_int4(code: int) -> int:
    bits, shift = code & 0x07, (code >> 3) - 1
    return bits if shift == -1 else (bits | 0x08) << shift


class SearchIndex:
    """Ranks documents for a query; made by `build`, opened by `open`.

    Args:
        arrays: ``terms`` sorted keys (V), ``starts`` (V + 1) into ``docs`` and ``scores`` (P), ``ranks`` the
            place of each document among all ids (N), which breaks ties.
    """

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self._terms, self._starts, self._docs, self._scores, self._ranks = (arrays[name] for name in _ARRAYS)
        self.size = len(self._ranks)

    @classmethod
    def open(cls, folder: Path) -> SearchIndex:
        """Map the index in `folder`; raises `EnvError` if it is not whole."""
        try:
            arrays = {name: map_array(folder / f"{name}.npy") for name in _ARRAYS}
        except (OSError, ValueError) as error:
            raise EnvError(f"{folder} holds no search index ({error}); remove the folder and prepare again") from error
        return cls(arrays)

    def search(self, query: str, count: int) -> list[int]:
        """The `count` best documents that hold any term of `query`, best first."""
        totals = np.zeros(self.size)
        for term, times in Counter(analyse(query)).items():
            place = int(np.searchsorted(self._terms, np.uint64(term_key(term))))
            if place < len(self._terms) and int(self._terms[place]) == term_key(term):
                docs, scores = self._postings(place)
                totals[docs] += scores if times == 1 else scores * np.float32(times)
        finals = totals.astype(np.float32)
        candidates = np.flatnonzero(finals >= max(_bound(finals, count), np.nextafter(np.float32(0), np.float32(1))))
        order = np.lexsort((self._ranks[candidates], -finals[candidates]))
        return candidates[order][:count].tolist()

    def _postings(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        start, end = int(self._starts[place]), int(self._starts[place + 1])
        return self._docs[start:end], self._scores[start:end]


def _bound(scores: np.ndarray, count: int) -> np.float32:
    """A number that at least `count` of `scores` reach, close to the largest such one.

    It is the `count`-th largest of the maxima of short runs, which is much cheaper than sorting all scores out.
    """
    runs = len(scores) // _RUN
    if runs < count:
        return np.float32(0)
    maxima = scores[: runs * _RUN].reshape(runs, _RUN).max(axis=1)
    return np.partition(maxima, -count)[-count]


def build(documents: Iterable[tuple[str, str]], folder: Path) -> int:
    """Index ``(id, text)`` pairs and write the arrays to `folder`; returns the number of documents.

    Memory: 10 bytes for each different term of each document until the end.
    """
    vocabulary: dict[str, int] = {}
    blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    pending: tuple[list[int], list[int], list[int]] = ([], [], [])
    ids: list[str] = []
    lengths: list[int] = []
    for doc, (name, text) in enumerate(documents):
        ids.append(name)
        terms = analyse(text)
        lengths.append(len(terms))
        for term, times in Counter(terms).items():
            pending[0].append(vocabulary.setdefault(term, len(vocabulary)))
            pending[1].append(doc)
            pending[2].append(min(times, 65535))
        if (doc + 1) % _BLOCK == 0:
            blocks.append(_block(pending))
    blocks.append(_block(pending))
    folder.mkdir(parents=True, exist_ok=True)
    ranks = np.empty(len(ids), np.int32)
    ranks[sorted(range(len(ids)), key=lambda doc: ids[doc].encode())] = np.arange(len(ids), dtype=np.int32)
    np.save(folder / "ranks.npy", ranks)
    _write(folder, vocabulary, blocks, lengths)
    return len(ids)


def _block(pending: tuple[list[int], ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The postings of some documents, sorted by term and then by document."""
    terms, docs = np.array(pending[0], np.int32), np.array(pending[1], np.int32)
    times = np.array(pending[2], np.uint16)
    for column in pending:
        column.clear()
    order = np.argsort(terms, kind="stable")
    return terms[order], docs[order], times[order]


def _write(
    folder: Path,
    vocabulary: dict[str, int],
    blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
    lengths: list[int],
) -> None:
    words = len(vocabulary)
    keys = np.fromiter((term_key(term) for term in vocabulary), np.uint64, words)
    rows = np.argsort(keys)
    if words and (np.diff(keys[rows]) == 0).any():
        raise EnvError("two search terms have one key; report this catalogue as an index bug")
    row_of = np.empty(words, np.int32)
    row_of[rows] = np.arange(words, dtype=np.int32)
    frequency = np.zeros(words, np.int64)
    for terms, _, _ in blocks:
        frequency += np.bincount(row_of[terms], minlength=words)
    starts = np.concatenate([[0], np.cumsum(frequency)])
    shape = max(int(starts[-1]), 1)  # an empty file cannot be mapped
    docs = np.lib.format.open_memmap(folder / "docs.npy", "w+", np.int32, (shape,))
    scores = np.lib.format.open_memmap(folder / "scores.npy", "w+", np.float32, (shape,))
    inverse = _inverse_norms(lengths)
    weights = _inverse_document_frequency(frequency, sum(1 for length in lengths if length))
    free = starts[:-1].copy()
    for terms, documents, times in blocks:
        if len(terms) == 0:
            continue
        row = row_of[terms]
        first = np.flatnonzero(np.diff(terms, prepend=-1))
        within = np.arange(len(terms)) - np.repeat(first, np.diff(np.append(first, len(terms))))
        place = free[row] + within
        weight = weights[row]
        # Lucene: weight - weight / (1 + frequency * inverse norm), all in single precision
        value = weight - weight / (np.float32(1) + times.astype(np.float32) * inverse[documents])
        docs[place], scores[place] = documents, value
        np.add.at(free, row[first], np.diff(np.append(first, len(terms))))
    for array in (docs, scores):
        array.flush()
    np.save(folder / "terms.npy", keys[rows] if words else np.zeros(1, np.uint64))
    np.save(folder / "starts.npy", starts if words else np.zeros(2, np.int64))


def _inverse_norms(lengths: Sequence[int]) -> np.ndarray:
    """``1 / (k1 * (1 - b + b * length / mean length))`` of each document, with its length rounded to a byte."""
    filled = max(sum(1 for length in lengths if length), 1)
    mean = np.float32(sum(lengths) / filled)
    table = np.array([byte_length(byte) for byte in range(256)], np.float32)
    inverse = np.float32(1) / (K1 * ((np.float32(1) - B) + B * table / max(mean, np.float32(1e-9))))
    return inverse[np.array([length_byte(length) for length in lengths], np.int64)]


def _inverse_document_frequency(frequency: np.ndarray, size: int) -> np.ndarray:
    return np.log(1 + (size - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
