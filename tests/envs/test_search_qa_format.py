"""Prompts and the action parser; the cases are those of the contract's projection."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdar_envs.base import EnvError, EpisodeView
from sdar_envs.search_qa.env import information, passages
from sdar_envs.search_qa.format import SearchQaFormat
from sdar_envs.search_qa.retrievers.base import Hit

FORMAT = SearchQaFormat()
PIECES = ["<search>", "</search>", "<answer>", "</answer>", "<SEARCH>", "</Answer>", "<think>", "x", " y ", "\n", "é"]


@pytest.mark.parametrize(
    ("text", "action", "valid"),
    [
        ("<think>t</think><search> who is x </search>", "<search>who is x</search>", True),
        ("<answer>\n Rome\n</answer> rest", "<answer>Rome</answer>", True),
        ("<search>a</search> then <search>b</search>", "<search>a</search>", False),
        ("<answer>a</answer><answer>b</answer>", "<answer>a</answer>", False),
        ("<answer>a</answer><search>b</search>", "<search>b</search>", False),
        ("<search>b</search><answer>a</answer>", "<search>b</search>", False),
        ("<answer>a</answer></search>", "<answer>a</answer>", True),
        ("<search>open <answer>a</answer>", "<answer>a</answer>", False),
        ("<search><answer>a</answer></search>", "<search><answer>a</answer></search>", False),
        ("<SEARCH>a</SEARCH>", "<search>a</search>", True),
        ("<search>a</SEARCH> <search>b</search>", "<search>a</search>", False),
        ("<search></search>", "<search></search>", True),
        ("no tags at all", "", False),
        ("<search>never closed", "", False),
        ("", "", False),
    ],
)
def test_projection(text, action, valid):
    parsed = FORMAT.parse(text)
    assert (parsed.action, parsed.valid) == (action, valid)
    assert bool(parsed.reason) != valid


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_any_text_is_parsed_by_the_rules(text):
    parsed = FORMAT.parse(text)
    assert re.fullmatch(r"<(search|answer)>.*</\1>|", parsed.action, re.DOTALL)
    lowered = text.lower()
    searches, answers = lowered.count("<search>"), lowered.count("<answer>")
    assert parsed.valid == (bool(parsed.action) and searches + answers == 1)


@given(st.text(max_size=60))
def test_a_clean_search_comes_back_as_it_was(query):
    query = query.replace("<", "").replace(">", "")
    assert FORMAT.parse(f"<search>{query}</search>").action == f"<search>{query.strip()}</search>"


def test_think_tags_are_demanded_only_on_request():
    strict = SearchQaFormat(require_think=True)
    assert not strict.parse("<search>a</search>").valid
    assert strict.parse("<think>so</think><search>a</search>").valid
    with pytest.raises(EnvError, match="require_think needs thinking"):
        SearchQaFormat(thinking=False, require_think=True)


def test_the_first_prompt_shows_question_and_choices():
    prompt = FORMAT.render(EpisodeView("who wrote it?", "who wrote it?", []))
    assert prompt.count("who wrote it?") == 1
    assert all(tag in prompt for tag in ("<think>", "<search>", "<answer>", "<information>"))
    assert "<think>" not in SearchQaFormat(thinking=False).render(EpisodeView("q", "q", []))


def test_without_instructions_question_and_history_remain():
    bare = SearchQaFormat(thinking=False, instructions=False)
    assert bare.render(EpisodeView("who wrote it?", "who wrote it?", [])) == "Question: who wrote it?"
    view = EpisodeView("q", "<information>A</information>", [], [("q", "<search>a</search>")])
    shown = bare.render(view)
    assert shown in SearchQaFormat(thinking=False).render(view) and shown.endswith("A</information>")
    with pytest.raises(EnvError, match="set thinking to false"):
        SearchQaFormat(instructions=False)


def test_later_prompts_show_the_steps_with_what_came_back():
    history = [("q", "<search>a</search>"), ("<information>A</information>", ""), ("", "<search>c</search>")]
    view = EpisodeView("q", "<information>C</information>", [], history)
    prompt = FORMAT.render(view)
    assert "Steps taken: 3" in prompt
    assert "Step 1:<search>a</search> <information>A</information>\nStep 2: \nStep 3:<search>c</search>" in prompt
    assert prompt.index("Step 3:") < prompt.index("<information>C</information>")
    short = SearchQaFormat(history_length=1).render(view)
    assert "Step 3:" in short and "Step 2:" not in short
    assert "Step 3:" not in SearchQaFormat(history_length=0).render(view)


def test_a_view_without_history_shows_what_came_back():
    """Whole-trajectory rows render each turn as if it had no history."""
    assert "<information>C</information>" in FORMAT.render(EpisodeView("q", "<information>C</information>", []))


def test_a_negative_history_is_refused():
    with pytest.raises(EnvError, match="history_length is -1"):
        SearchQaFormat(history_length=-1)


def test_information_is_an_escaped_json_string():
    hits = [Hit("1", '"Title"\nfirst é ', 2.0), Hit("2", "second", 1.0)]
    block = information(hits)
    assert block == '<information>{"result": "Doc 1: \\"Title\\"\\nfirst \\u00e9\\nDoc 2: second\\n"}</information>'
    assert json.loads(block[len("<information>") : -len("</information>")])["result"].count("Doc ") == 2
    assert passages(block) == ['"Title"\nfirst é', "second"]
    assert passages(information([])) == passages("") == passages("<information>junk</information>") == []
