"""BM25 from an inverted index on disk (package tantivy): quick to build, small in memory, for corpora of any size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdar_envs.search_qa.corpus import PassageStore
from sdar_envs.search_qa.retrievers.base import RetrieverError, missing_package
from sdar_envs.search_qa.retrievers.local import LocalRetriever

_ANALYZER, _TEXT, _ROW = "sdar_english", "contents", "row"
_LONGEST_WORD = 40
_COMMIT_EVERY = 1_000_000  # passages


def _package() -> Any:
    try:
        import tantivy
    except ImportError as error:
        raise missing_package("tantivy", "search-qa") from error
    return tantivy


def _analyzer() -> Any:
    tantivy = _package()
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    for part in (
        tantivy.Filter.remove_long(_LONGEST_WORD),
        tantivy.Filter.lowercase(),
        tantivy.Filter.stopword("english"),
        tantivy.Filter.stemmer("english"),
    ):
        builder = builder.filter(part)
    return builder.build()


class Tantivy(LocalRetriever):
    """tantivy's BM25 (k1 = 1.2, b = 0.75, fixed in the package) over English word stems.

    A query is a set of words: none of the query language's signs means anything, since agents write freely.
    Building takes ``heap_mb`` (memory for building) and ``threads`` (0: all cores).
    """

    name = "tantivy"
    build_options = {"heap_mb": 256, "threads": 1}

    def __init__(self, store: PassageStore, index: Any, analyzer: Any) -> None:
        super().__init__(store)
        self._index, self._analyzer = index, analyzer
        self._searcher = index.searcher()

    @classmethod
    def _build(cls, store: PassageStore, folder: Path, options: Mapping[str, Any]) -> None:
        tantivy = _package()
        schema = (
            tantivy.SchemaBuilder()
            .add_text_field(_TEXT, stored=False, tokenizer_name=_ANALYZER, index_option="freq")
            .add_unsigned_field(_ROW, stored=False, indexed=False, fast=True)
            .build()
        )
        index = tantivy.Index(schema, path=str(folder))
        index.register_tokenizer(_ANALYZER, _analyzer())
        writer = index.writer(heap_size=options["heap_mb"] * 1_000_000, num_threads=options["threads"])
        for row, passage in enumerate(store):
            document = tantivy.Document()
            document.add_text(_TEXT, passage.contents)
            document.add_unsigned(_ROW, row)
            writer.add_document(document)
            if row % _COMMIT_EVERY == _COMMIT_EVERY - 1:
                writer.commit()
        writer.commit()
        writer.wait_merging_threads()

    @classmethod
    def _load(cls, store: PassageStore, folder: Path, options: Mapping[str, Any]) -> Tantivy:
        try:
            index = _package().Index.open(str(folder))
        except ValueError as error:
            raise RetrieverError(f"the tantivy index in {folder} cannot be opened: {error}; build it anew") from error
        analyzer = _analyzer()
        index.register_tokenizer(_ANALYZER, analyzer)
        retriever = cls(store, index, analyzer)
        if retriever._searcher.num_docs != len(store):
            raise RetrieverError(f"the tantivy index in {folder} is incomplete; build it anew")
        return retriever

    def _positions(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        return [self._one(query, k) for query in queries]

    def _one(self, query: str, k: int) -> list[tuple[int, float]]:
        tantivy = _package()
        words = self._analyzer.analyze(query)
        if not words:
            return []
        terms = []
        for word, count in Counter(words).items():  # the same word a thousand times would take the engine seconds
            term = tantivy.Query.term_query(self._index.schema, _TEXT, word, index_option="freq")
            terms.append((tantivy.Occur.Should, tantivy.Query.boost_query(term, count) if count > 1 else term))
        hits = self._searcher.search(tantivy.Query.boolean_query(terms), k, count=False).hits
        rows = self._searcher.fast_field_values(_ROW, [address for _, address in hits])
        return [(int(row), float(score)) for (score, _), row in zip(hits, rows, strict=True)]


RETRIEVER = Tantivy
