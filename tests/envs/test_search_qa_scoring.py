"""Normalisation, exact match and F1 against worked examples and laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdar_envs.search_qa.scoring import MOST_TAGS, exact_match, f1, holds_answer, last_answer, normalize, score

TEXT = st.text(alphabet="abc theTHE.,!-é<>/answr ", max_size=40)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Beatles!", "beatles"),
        ("a U.S. city", "us city"),
        ("An-other", "another"),
        ("theatre", "theatre"),
        ("  Éclair, the ", "éclair"),
        ("the a an", ""),
    ],
)
def test_normalize(text, normal):
    assert normalize(text) == normal


@given(TEXT)
def test_normalize_twice_changes_no_word(text):
    """Only an article can appear by dropping punctuation, so a second pass may shorten but never invents."""
    once, twice = normalize(text).split(), normalize(normalize(text)).split()
    assert all(word in once for word in twice)
    assert [word for word in once if word not in ("a", "an", "the")] == twice


@given(TEXT, TEXT)
def test_measures_agree_at_their_ends(answer, target):
    exact, overlap = exact_match(answer, [target]), f1(answer, [target])
    assert exact in (0.0, 1.0)
    assert 0.0 <= overlap <= 1.0
    assert exact == exact_match(target, [answer])
    assert overlap == pytest.approx(f1(target, [answer]))
    if exact:
        assert overlap == 1.0


def test_f1_by_hand():
    assert f1("Barack Hussein Obama", ["Obama"]) == pytest.approx(2 * (1 / 3) * 1 / (1 / 3 + 1))
    assert f1("in 1999", ["1999", "year 2000"]) == pytest.approx(2 / 3)
    assert f1("new new york", ["new york york"]) == pytest.approx(2 / 3)
    assert f1("yes it is", ["yes"]) == 0.0
    assert f1("x", []) == 0.0


def test_the_last_answer_of_the_whole_history_counts():
    history = "<answer>one</answer><information>text</information><answer> two\nlines </answer>"
    assert last_answer(history) == "two\nlines"
    assert score(history, ["Two lines"]).reward == 1.0
    assert score(history, ["one"]).reward == 0.0
    assert score("<answer>open", ["open"]) == score("nothing", ["open"])
    assert score("nothing", ["open"]).answer is None


def test_every_accepted_answer_counts():
    assert score("<answer>calypso</answer>", ["Kalypso", "the Calypso"]).exact == 1.0


def test_many_tags_earn_a_quarter():
    for tags, reward in ((MOST_TAGS, 1.0), (MOST_TAGS + 1, 0.25)):
        assert score("<answer>x</answer>" * tags, ["x"]).reward == reward


def test_an_answer_is_held_as_whole_words():
    assert holds_answer('"Rome"\nThe U.S. mission to Rome.', ["us mission"])
    assert not holds_answer("Romeo and Juliet", ["Rome"])
    assert not holds_answer("anything", ["the"])
