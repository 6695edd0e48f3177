"""Passages: read from the official files, kept in a folder from which any of them can be read at once."""

from __future__ import annotations

import gzip
import hashlib
import json
import mmap
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdar_envs.base import EnvError

PASSAGES, OFFSETS, SUMMARY = "passages.jsonl", "offsets.npy", "corpus.json"
_IDS = ("id", "_id", "docid")
_BATCH = 8192


class CorpusError(EnvError):
    """A corpus or a passage that cannot be used; the message says which and why."""


@dataclass(frozen=True)
class Passage:
    """One passage; `contents` holds the quoted title in its first line, then the text."""

    id: str
    contents: str


def read_corpus(paths: Sequence[str | os.PathLike[str]]) -> Iterator[Passage]:
    """Passages of ``.jsonl``, ``.jsonl.gz`` and ``.parquet`` files, in order.

    A row holds ``id`` (or ``_id``, ``docid``) and either ``contents`` (wiki-18 as Search-R1 gives it) or ``title`` and
    ``text``.

    Raises:
        CorpusError: a file or a row cannot be read.
    """
    for path in map(Path, paths):
        rows = _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)
        for number, row in enumerate(rows, 1):
            yield _passage(row, f"{path}, row {number}")


def write_store(passages: Iterable[Passage], folder: str | os.PathLike[str]) -> PassageStore:
    """Write passages into `folder` and open it; an unfinished store is one without its summary and is written anew.

    Raises:
        CorpusError: there are no passages, or the folder holds another corpus already.
    """
    folder = Path(folder)
    if (folder / SUMMARY).exists():
        raise CorpusError(f"{folder} holds a corpus already; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    digest, offsets, position = hashlib.sha256(), array("Q"), 0
    with open(folder / PASSAGES, "wb") as out:
        for passage in passages:
            try:
                line = json.dumps({"id": passage.id, "contents": passage.contents}, ensure_ascii=False).encode() + b"\n"
            except UnicodeEncodeError as error:
                raise CorpusError(f"passage {passage.id!r} holds half of a character: {error}") from error
            offsets.append(position)
            position += out.write(line)
            digest.update(line)
    if not offsets:
        raise CorpusError("the corpus has no passages")
    offsets.append(position)
    np.save(folder / OFFSETS, np.frombuffer(offsets, dtype=np.uint64))
    write_json(folder / SUMMARY, {"passages": len(offsets) - 1, "bytes": position, "sha256": digest.hexdigest()})
    return PassageStore(folder)


class PassageStore(Sequence[Passage]):
    """Passages by position, memory-mapped: processes on one machine share the pages.

    Attributes:
        sha256: digest of the passages; an index belongs to exactly one.

    Raises:
        CorpusError: the folder holds no finished corpus, or a damaged one.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        try:
            summary = json.loads((self.folder / SUMMARY).read_text(encoding="utf-8"))
            self._offsets = np.load(self.folder / OFFSETS, mmap_mode="r")
            with open(self.folder / PASSAGES, "rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise CorpusError(f"{self.folder} holds no finished corpus ({error}); run: sdar-retriever build") from error
        self.sha256: str = summary["sha256"]
        if len(self._offsets) != summary["passages"] + 1 or len(self._bytes) != summary["bytes"]:
            raise CorpusError(f"the corpus in {self.folder} is damaged: its files do not fit together; build it anew")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, position: int) -> Passage:  # type: ignore[override]
        if not 0 <= position < len(self):
            raise IndexError(position)
        row = json.loads(self._bytes[int(self._offsets[position]) : int(self._offsets[position + 1])])
        return Passage(row["id"], row["contents"])

    def __iter__(self) -> Iterator[Passage]:
        return (self[position] for position in range(len(self)))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a small JSON file so that it is there whole or not at all."""
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(scratch, path)


def _json_rows(path: Path) -> Iterator[Any]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise CorpusError(f"{path}, row {number}: not JSON ({error})") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from error


def _parquet_rows(path: Path) -> Iterator[Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise CorpusError("parquet corpora need pyarrow: pip install 'sdar-envs[search-qa]'") from error
    try:
        with pq.ParquetFile(path) as file:
            wanted = [name for name in (*_IDS, "contents", "title", "text") if name in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=_BATCH, columns=wanted):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{path} cannot be read as parquet: {str(error).splitlines()[0]}") from error


def _passage(row: Any, where: str) -> Passage:
    if not isinstance(row, Mapping):
        raise CorpusError(f"{where}: not an object")
    name = next((row[key] for key in _IDS if row.get(key) is not None), None)
    if isinstance(name, bool) or not isinstance(name, (str, int)):
        raise CorpusError(f"{where}: no id (looked for {', '.join(_IDS)})")
    contents = row.get("contents")
    if contents is None and isinstance(row.get("text"), str):
        contents = f'"{row.get("title") or ""}"\n{row["text"]}'
    if not isinstance(contents, str) or not contents.strip():
        raise CorpusError(f"{where}: no contents, and no title and text")
    return Passage(str(name), contents)
