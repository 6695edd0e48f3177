"""Engines whose index lies in a folder on this machine, beside the passages.

``<index>/passages.jsonl``, ``offsets.npy`` and ``corpus.json`` hold the corpus; ``<index>/<engine>/`` holds an engine's
own files and, written last, ``built.json``: which corpus it was built from, and how. One folder can hold several
engines over the same passages.
"""

from __future__ import annotations

import json
import shutil
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from sdar_envs.paths import expanded
from sdar_envs.search_qa.corpus import PassageStore, write_json
from sdar_envs.search_qa.retrievers.base import Hit, Retriever, RetrieverError, settings

FORMAT = 1
_BUILT = "built.json"


class LocalRetriever(Retriever):
    """Base of engines with an index folder; a subclass finds positions, this class makes passages of them.

    Attributes:
        build_options: what `build` may be told, with its defaults; kept with the index and given to `_load`.
        open_options: what only opening may be told.
    """

    build_options: ClassVar[Mapping[str, Any]] = {}
    open_options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, store: PassageStore) -> None:
        self.store = store

    @classmethod
    def build(cls, store: PassageStore, options: Mapping[str, Any] | None = None) -> None:
        """Build the index of `store` in its folder; an older one of this engine is replaced.

        Raises:
            RetrieverError: an option is unknown or cannot be used.
        """
        options = settings(cls.name, cls.build_options, options or {})
        folder = store.folder / cls.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        cls._build(store, folder, options)
        write_json(
            folder / _BUILT,
            {"format": FORMAT, "corpus": store.sha256, "passages": len(store), "options": options},
        )

    @classmethod
    def open(cls, config: Mapping[str, Any]) -> LocalRetriever:
        chosen = settings(cls.name, {"index": None, **cls.open_options}, config)
        if not chosen["index"]:
            raise RetrieverError(f"retriever {cls.name} needs its folder: set index (made by: sdar-retriever build)")
        store = PassageStore(expanded(chosen.pop("index"), "the retriever's index"))
        folder = store.folder / cls.name
        try:
            built = json.loads((folder / _BUILT).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RetrieverError(
                f"{store.folder} has no finished {cls.name} index; run: sdar-retriever build --engine {cls.name}"
            ) from error
        if built["format"] != FORMAT or built["corpus"] != store.sha256:
            raise RetrieverError(
                f"the {cls.name} index in {store.folder} is of another corpus or format; build it anew"
            )
        return cls._load(store, folder, {**built["options"], **chosen})

    @classmethod
    @abstractmethod
    def _build(cls, store: PassageStore, folder: Path, options: Mapping[str, Any]) -> None:
        """Write the engine's files into the empty `folder`."""

    @classmethod
    @abstractmethod
    def _load(cls, store: PassageStore, folder: Path, options: Mapping[str, Any]) -> LocalRetriever:
        """Open what `_build` wrote."""

    @abstractmethod
    def _positions(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        """Positions in the store and scores, best first, for `k` of at most the store's size."""

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        if k < 1:
            raise RetrieverError(f"k is {k}; ask for at least one passage")
        found = self._positions(queries, min(k, len(self.store))) if queries else []
        return [[self._hit(position, score) for position, score in row] for row in found]

    def _hit(self, position: int, score: float) -> Hit:
        passage = self.store[position]
        return Hit(passage.id, passage.contents, score)
