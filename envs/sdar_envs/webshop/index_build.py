"""Makes the search index: BM25 weights with Lucene's arithmetic, sorted by term, written as plain arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sdar_envs.base import EnvError
from sdar_envs.webshop.analyser import analyse
from sdar_envs.webshop.index import term_key

K1, B = np.float32(0.9), np.float32(0.4)
_BLOCK = 20_000  # documents whose postings are sorted at a time
_ROWS_FROM, _COMMON = 50_000, 6  # in indexes of so many documents, terms of more than one in six get a row


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
    _write_rows(folder, starts, docs, scores, len(lengths))


def _write_rows(folder: Path, starts: np.ndarray, docs: np.ndarray, scores: np.ndarray, size: int) -> None:
    frequency = np.diff(starts)
    common = np.flatnonzero(frequency * _COMMON > size) if size >= _ROWS_FROM else np.zeros(0, np.int64)
    shape = (len(common), size) if len(common) else (1, 1)  # an empty file cannot be mapped
    rows = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.float32, shape)
    for row, place in enumerate(common):
        span = slice(int(starts[place]), int(starts[place + 1]))
        rows[row, docs[span]] = scores[span]
    rows.flush()
    np.save(folder / "common.npy", common)


def _inverse_norms(lengths: Sequence[int]) -> np.ndarray:
    """``1 / (k1 * (1 - b + b * length / mean length))`` of each document, with its length rounded to a byte."""
    filled = max(sum(1 for length in lengths if length), 1)
    mean = np.float32(sum(lengths) / filled)
    table = np.array([byte_length(byte) for byte in range(256)], np.float32)
    inverse = np.float32(1) / (K1 * ((np.float32(1) - B) + B * table / max(mean, np.float32(1e-9))))
    return inverse[np.array([length_byte(length) for length in lengths], np.int64)]


def _inverse_document_frequency(frequency: np.ndarray, size: int) -> np.ndarray:
    return np.log(1 + (size - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
