"""Words and ranks as Lucene has them."""

import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sdar_envs.base import EnvError
from sdar_envs.webshop import analyser, index, index_build
from sdar_envs.webshop.analyser import analyse, stem


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("the Women's dresses", ["women", "dress"]),
        ("women\u2019s", ["women"]),
        ("material:solid wood", ["material:solid", "wood"]),
        ("u.s.a. 3.5 3,000 3:4 a.1", ["u.s.a", "3.5", "3,000", "3", "4", "1"]),
        ("snake_case __ can't", ["snake_cas", "can't"]),
        ("t-shirt 36w x 32l", ["t", "shirt", "36w", "x", "32l"]),
        ("\u65e5\u672c \u3072\u3089 \uff76\uff85", ["\u65e5", "\u672c", "\u3072", "\u3089", "\uff76\uff85"]),
        ("\u2605\u2605 \u2606 \u2764\ufe0fok \u00ae", ["\u2605", "\u2605", "\u2764\ufe0f", "ok", "\u00ae"]),
        ("\U0001f468\u200d\U0001f4bc\U0001f44d\U0001f3fd", ["\U0001f468\u200d\U0001f4bc", "\U0001f44d\U0001f3fd"]),
        ("\U0001f1e9\U0001f1ea\U0001f1eb", ["\U0001f1e9\U0001f1ea"]),
        ("#\ufe0f\u20e3 1\ufe0f\u20e3", ["#\ufe0f\u20e3", "1\ufe0f\u20e3"]),
        ("", []),
    ],
)
def test_terms(text, terms):
    assert analyse(text) == terms


@pytest.mark.parametrize(
    ("word", "stemmed"),
    [
        ("possibly", "possibl"), ("technologies", "technolog"), ("ecology", "ecolog"), ("assemblies", "assembl"),
        ("incredibly", "incred"), ("bly", "bly"), ("logy", "logi"), ("us", "us"), ("7s", "7s"), ("vs", "vs"),
        ("relational", "relat"), ("caresses", "caress"), ("hopping", "hop"), ("nibbly", "nibbl"), ("ably", "abli"),
    ],
)  # fmt: skip
def test_porters_later_rules(word, stemmed):
    """Pairs from Porter's own later program, where the first version of the algorithm often says otherwise."""
    assert stem(word) == stemmed


def test_long_words_are_cut():
    assert [len(term) for term in analyse("7" * 600)] == [255, 255, 90]


@settings(max_examples=400)
@given(st.text("abZ1 2._':;,-!\n\"#*", max_size=20))
def test_the_quick_pattern_for_ascii_finds_the_same_words(text):
    slow = [word.group() for word in analyser._UNICODE.finditer(text)]
    assert analyser._words(text) == [word for word in slow if word.strip("_")]


@settings(max_examples=200)
@given(st.text(max_size=60))
def test_any_text_has_terms_or_none(text):
    assert all(term for term in analyse(text))
    assert analyse(text) == analyse(text)


def test_norm_bytes():
    lengths = {0: 0, 1: 1, 39: 39, 40: 40, 41: 40, 42: 42, 100: 96, 1000: 984}
    assert {length: index_build.byte_length(index_build.length_byte(length)) for length in lengths} == lengths
    bytes_ = [index_build.length_byte(length) for length in range(5000)]
    assert bytes_ == sorted(bytes_)
    assert all(index_build.byte_length(index_build.length_byte(length)) <= length for length in range(5000))
    with pytest.raises(ValueError, match="cannot be"):
        index_build.length_byte(-1)


def reference(documents, query, count):
    """Plain BM25 over all documents, written from the formula."""
    analysed = [(name, analyse(text)) for name, text in documents]
    lengths = [len(terms) for _, terms in analysed]
    mean = sum(lengths) / max(1, sum(1 for length in lengths if length))
    size = sum(1 for length in lengths if length)
    totals = {}
    for term, times in Counter(analyse(query)).items():
        frequency = sum(term in terms for _, terms in analysed)
        for name, terms in analysed:
            if term in terms:
                weight = np.float32(math.log(1 + (size - frequency + 0.5) / (frequency + 0.5)))
                rounded = index_build.byte_length(index_build.length_byte(len(terms)))
                inverse = np.float32(1) / (
                    np.float32(0.9) * (np.float32(0.6) + np.float32(0.4) * np.float32(rounded) / np.float32(mean))
                )
                part = weight - weight / (np.float32(1) + np.float32(terms.count(term)) * inverse)
                totals[name] = totals.get(name, 0.0) + float(part * np.float32(times))
    return sorted(totals, key=lambda name: (-np.float32(totals[name]), name.encode()))[:count]


@pytest.mark.parametrize(("run", "rows_from"), [(2, 0), (64, 10**9)])
def test_ranks_equal_the_formula(tmp_path, monkeypatch, run, rows_from):
    """Also as in large indexes: with a bound on the best scores, and common terms in rows."""
    rng = random.Random(3)
    words = [f"w{number}" for number in range(60)]
    weights = [1 / (number + 1) for number in range(60)]  # some words are in nearly every document
    documents = [
        (f"D{rng.randrange(10**6):06d}{number}", " ".join(rng.choices(words, weights, k=rng.randint(0, 60))))
        for number in range(400)
    ]
    monkeypatch.setattr(index, "_RUN", run)
    monkeypatch.setattr(index_build, "_ROWS_FROM", rows_from)
    monkeypatch.setattr(index_build, "_BLOCK", 64)
    assert index_build.build(documents, tmp_path) == 400
    opened = index.SearchIndex.open(tmp_path)
    assert bool(opened._row_of) == (rows_from == 0)
    for _ in range(150):
        query = " ".join(rng.choices(words, k=rng.randint(1, 12)))
        found = [documents[number][0] for number in opened.search(query, 20)]
        assert found == reference(documents, query, 20)


def test_ties_are_broken_by_id_not_by_order(tmp_path):
    index_build.build([("b", "same text"), ("a", "same text"), ("c", "other")], tmp_path)
    opened = index.SearchIndex.open(tmp_path)
    assert opened.search("same", 5) == [1, 0]
    assert opened.search("nothing of it", 5) == opened.search("the of", 5) == opened.search("", 5) == []


def test_an_index_of_nothing_and_a_broken_one(tmp_path):
    index_build.build([("a", ""), ("b", "the of")], tmp_path / "empty")
    assert index.SearchIndex.open(tmp_path / "empty").search("a word", 5) == []
    (tmp_path / "empty" / "docs.npy").write_bytes(b"no array")
    with pytest.raises(EnvError, match="prepare again"):
        index.SearchIndex.open(tmp_path / "empty")
