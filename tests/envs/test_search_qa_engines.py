"""Corpora and local engines: a BM25 oracle, odd queries, damaged folders, vectors."""

import gzip
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st
from sdar_envs.base import EnvError
from sdar_envs.search_qa import bench
from sdar_envs.search_qa.corpus import CorpusError, Passage, PassageStore, read_corpus, write_store
from sdar_envs.search_qa.generate import write_questions
from sdar_envs.search_qa.questions import Question
from sdar_envs.search_qa.retrievers import get, names, open_retriever, register
from sdar_envs.search_qa.retrievers.base import RetrieverError
from sdar_envs.search_qa.server import cli

LEXICAL = ("bm25s", "tantivy")
WORDS = "lamp river stone cloud paper engine garden winter copper violin harbour meadow".split()


def corpus(count=60, seed=0):
    rng = random.Random(seed)
    return [
        Passage(f"p{n}", f'"Title {n}"\n' + " ".join(rng.choices(WORDS, k=rng.randint(3, 25)))) for n in range(count)
    ]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    store = write_store(corpus(), tmp_path_factory.mktemp("engines") / "index")
    for engine in LEXICAL:
        get(engine).build(store)
    return store.folder


def bm25(passages, query, k1, b):
    """Lucene's formula in plain words, for texts that stemming and stop words leave alone."""
    texts = [passage.contents.lower().replace('"', " ").split() for passage in passages]
    texts = [[word for word in words if len(word) > 1] for words in texts]
    mean = sum(map(len, texts)) / len(texts)
    scores = []
    for words in texts:
        counts, score = Counter(words), 0.0
        for word in query.split():
            holding = sum(word in other for other in texts)
            weight = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
            score += weight * counts[word] / (counts[word] + k1 * (1 - b + b * len(words) / mean))
        scores.append(score)
    return scores


def test_bm25s_follows_lucenes_formula(tmp_path):
    passages = corpus()
    store = write_store(passages, tmp_path / "index")
    get("bm25s").build(store, {"stem": False})
    engine = open_retriever({"engine": "bm25s", "index": str(store.folder)})
    for query in ("lamp river", "stone stone cloud", "violin"):
        expected = bm25(passages, query, 0.9, 0.4)
        (hits,) = engine.search([query], 10)
        assert [hit.score for hit in hits] == pytest.approx(sorted(expected, reverse=True)[:10], rel=1e-4)
        assert all(hit.score == pytest.approx(expected[int(hit.id[1:])], rel=1e-4) for hit in hits)


@pytest.mark.parametrize("engine", LEXICAL)
def test_a_batch_answers_as_single_queries_do(index, engine):
    retriever = open_retriever({"engine": engine, "index": str(index)})
    queries = ["lamp", "nothing known", "", "copper violin title", "Lamps, rivers & gardens!"]
    assert retriever.search(queries, 4) == [retriever.search([query], 4)[0] for query in queries]
    found = retriever.search(queries, 4)
    assert [len(hits) for hits in found] == [4, 0, 0, 4, 4]
    for hits in found:
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert retriever.search([], 3) == []
    assert len(retriever.search(["lamp river stone"], 1000)[0]) <= 60
    with pytest.raises(RetrieverError, match="k is 0"):
        retriever.search(["lamp"], 0)


@pytest.mark.parametrize("engine", LEXICAL)
def test_signs_of_query_languages_mean_nothing(index, engine):
    retriever = open_retriever({"engine": engine, "index": str(index)})
    plain = retriever.search(["lamp river"], 5)
    assert retriever.search(['+lamp -"river~"^ (*'], 5) == plain
    assert retriever.search(["contents:lamp] river*"], 5)[0][0].score >= plain[0][0].score


@pytest.mark.parametrize("engine", LEXICAL)
def test_a_repeated_word_counts_as_often(index, engine):
    retriever = open_retriever({"engine": engine, "index": str(index)})
    once, thrice = (retriever.search([query], 1)[0][0] for query in ("violin", "violin violin violin"))
    assert (thrice.id, thrice.score) == (once.id, pytest.approx(3 * once.score, rel=1e-4))
    start = time.monotonic()
    assert retriever.search(["lamp river " * 3000], 1)[0]
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("engine", LEXICAL)
def test_any_text_is_a_query(index, engine):
    retriever = open_retriever({"engine": engine, "index": str(index)})

    @limits(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(st.text(max_size=80))
    def ask(query):
        (hits,) = retriever.search([query], 3)
        assert all(hit.score > 0 for hit in hits)

    ask()


def test_word_forms_are_found(index):
    for engine in LEXICAL:
        (hits,) = open_retriever({"engine": engine, "index": str(index)}).search(["gardens"], 3)
        assert hits and all("garden" in hit.contents for hit in hits), engine


def test_of_equal_scores_the_earlier_passage_comes_first(tmp_path):
    store = write_store([Passage(f"p{n}", "lamp" if n % 2 else "stone lamp") for n in range(20)], tmp_path / "index")
    get("bm25s").build(store)
    engine = open_retriever({"engine": "bm25s", "index": str(store.folder)})
    for k in (1, 3, 10):
        assert [hit.id for hit in engine.search(["lamp"], k)[0]] == [f"p{2 * n + 1}" for n in range(k)]
    assert [hit.id for hit in engine.search(["lamp"], 12)[0]][10:] == ["p0", "p2"]


def test_an_index_belongs_to_one_corpus_and_must_be_whole(tmp_path):
    store = write_store(corpus(5), tmp_path / "index")
    with pytest.raises(RetrieverError, match="no finished bm25s index; run: sdar-retriever build --engine bm25s"):
        open_retriever({"engine": "bm25s", "index": str(store.folder)})
    get("bm25s").build(store)
    built = store.folder / "bm25s" / "built.json"
    content = json.loads(built.read_text())
    built.write_text(json.dumps({**content, "corpus": "another"}))
    with pytest.raises(RetrieverError, match="of another corpus"):
        open_retriever({"engine": "bm25s", "index": str(store.folder)})
    with pytest.raises(RetrieverError, match="unknown keys of retriever tantivy: stems; known: heap_mb, threads"):
        get("tantivy").build(store, {"stems": 1})


def test_names_are_registered_once():
    assert names() == ["bedrock", "bm25s", "dense", "http", "kendra", "tantivy"]
    register("bm25s", "sdar_envs.search_qa.retrievers.bm25s")
    with pytest.raises(RetrieverError, match="already registered"):
        register("bm25s", "elsewhere")


def test_all_corpus_files_are_read(tmp_path):
    rows = [{"id": 7, "contents": '"T"\ntext é'}, {"_id": "8", "title": "U", "text": "more"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.Table.from_pylist([{"id": "9", "contents": "x"}]), tmp_path / "c.parquet")
    expected = [Passage("7", '"T"\ntext é'), Passage("8", '"U"\nmore')]
    files = [tmp_path / name for name in ("a.jsonl", "b.jsonl.gz", "c.parquet")]
    assert list(read_corpus(files)) == [*expected, *expected, Passage("9", "x")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "row 1: not JSON"),
        ('{"id": "1", "contents": "x"}\n[]\n', "row 2: not an object"),
        ('{"contents": "x"}', "row 1: no id"),
        ('{"id": "1", "contents": " "}', "row 1: no contents"),
        ("", "the corpus has no passages"),
    ],
)
def test_broken_corpora_are_refused_by_row(tmp_path, text, says):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(CorpusError, match=says):
        write_store(read_corpus([tmp_path / "a.jsonl"]), tmp_path / "index")
    with pytest.raises(CorpusError, match="no finished corpus"):
        PassageStore(tmp_path / "index")


def test_a_broken_archive_is_refused(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"id": "1", "contents": "x"}\n' * 99)[:-9])
    with pytest.raises(CorpusError, match="cannot be read"):
        list(read_corpus([tmp_path / "a.jsonl.gz"]))


@limits(max_examples=30)
@given(st.lists(st.tuples(st.text(max_size=5), st.text(min_size=1, max_size=30)), min_size=1, max_size=8))
def test_a_store_gives_back_what_it_was_given(rows):
    passages = [Passage(*row) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(passages, folder)
        assert list(store) == passages and len(store) == len(passages)


def test_what_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": "1", "contents": "half a sign: \\ud83d"}')
    with pytest.raises(CorpusError, match="passage '1' holds half of a character"):
        write_store(read_corpus([tmp_path / "a.jsonl"]), tmp_path / "index")


def test_a_damaged_store_is_refused(tmp_path):
    store = write_store(corpus(5), tmp_path / "index")
    with pytest.raises(IndexError):
        store[5]
    with pytest.raises(CorpusError, match="holds a corpus already"):
        write_store(corpus(5), tmp_path / "index")
    with open(tmp_path / "index" / "passages.jsonl", "ab") as file:
        file.write(b"more")
    with pytest.raises(CorpusError, match="damaged"):
        PassageStore(tmp_path / "index")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny random BERT with a word tokenizer."""
    pytest.importorskip("faiss")
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "query", "title", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("encoder")
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        folder
    )
    config = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    transformers.set_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    return str(folder)


def test_dense_finds_the_nearest_vectors(tmp_path, encoder):
    store = write_store(corpus(40), tmp_path / "index")
    get("dense").build(store, {"model": encoder, "batch": 7, "query_prefix": "query "})
    engine = open_retriever({"engine": "dense", "index": str(store.folder), "threads": 1})
    vectors = engine._encoder.encode([passage.contents for passage in store])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(40), abs=1e-5)
    single = np.concatenate([engine._encoder.encode([passage.contents]) for passage in store])
    assert vectors == pytest.approx(single, abs=1e-5), "padding must not change a vector"
    scores = vectors @ engine._encoder.encode(["query lamp river"])[0]
    (hits,) = engine.search(["lamp river"], 5)
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores.tolist(), reverse=True)[:5], abs=1e-5)
    assert [hit.id for hit in hits] == [f"p{row}" for row in np.argsort(-scores)[:5]]


def test_dense_takes_ready_vectors_and_checks_them(tmp_path, encoder):
    store = write_store(corpus(6), tmp_path / "one")
    get("dense").build(store, {"model": encoder})
    ready = str(store.folder / "dense" / "vectors.faiss")
    twin = write_store(corpus(6), tmp_path / "two")
    get("dense").build(twin, {"model": encoder, "vectors": ready})
    found = [open_retriever({"engine": "dense", "index": str(s.folder)}).search(["stone"], 3) for s in (store, twin)]
    assert found[0] == found[1]
    other = write_store(corpus(7), tmp_path / "three")
    with pytest.raises(RetrieverError, match="holds 6 vectors of 32 numbers; the corpus has 7 passages"):
        get("dense").build(other, {"model": encoder, "vectors": ready})
    with pytest.raises(EnvError, match="cannot be loaded"):
        get("dense").build(other, {"model": str(tmp_path / "nothing")})
    with pytest.raises(RetrieverError, match="factory='Flatt'"):
        get("dense").build(other, {"model": encoder, "factory": "Flatt"})


def test_bench_counts_answers_in_the_first_passages(index):
    retriever = open_retriever({"engine": "bm25s", "index": str(index)})
    (first, second) = retriever.search(["lamp river"], 2)[0]
    own = [hit.contents.split("\n")[0].strip('"') for hit in (first, second)]
    questions = [
        Question("lamp river", (own[0],), "one", "fact"),
        Question("lamp river", (own[1],), "two", "fact"),
        Question("lamp river", ("nowhere",), "two", "fact"),
    ]
    at_one, at_two = (bench.quality(retriever, questions, k, batch=2) for k in (1, 2))
    assert (at_one.recall, at_one.by_source, at_one.mean) == (pytest.approx(1 / 3), {"one": 1.0, "two": 0.0}, 0.5)
    assert (at_two.recall, at_two.by_source) == (pytest.approx(2 / 3), {"one": 1.0, "two": 0.5})
    took = bench.speed(retriever, ["lamp"] * 30, batch=7)
    assert 0 < took.p50_ms <= took.p99_ms and took.cpu_ms > 0 and took.batched_per_second > 0
    with pytest.raises(EnvError, match="no questions"):
        bench.quality(retriever, [])


def test_the_benchmark_and_the_command_run(tmp_path, index):
    questions = [Question(f"{a} {b}", (a,), "nq", "fact") for a in WORDS[:4] for b in WORDS[4:]]
    write_questions(questions, tmp_path / "q.parquet", "q")
    script = Path(__file__).parents[2] / "benchmarks" / "retrieval.py"
    data = ["--questions", str(tmp_path / "q.parquet"), "--timed", "5", "--json", str(tmp_path / "out.json")]
    corpus_file = str(index / "passages.jsonl")
    part = ["--corpus", corpus_file, "--engines", "tantivy", "http", "--limit", "20", "--passages", "30"]
    done = subprocess.run([sys.executable, str(script), *data, *part], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out.json").read_text())
    direct, served = written["results"]
    assert 30 <= written["passages"] < 60 and direct["quality"] == served["quality"]
    assert cli.main(["bench", "--engine", "bm25s", "--index", str(index), *data]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["quality"]["recall"] > 0.9
