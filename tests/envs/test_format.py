"""The ALFWorld prompt and parser: fields of the contract, projection rules, options."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdar_envs.alfworld.format import AlfworldFormat
from sdar_envs.alfworld.room import room_places
from sdar_envs.base import EnvError, EpisodeView, ParsedAction

FIRST = (
    "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, you see "
    "a bed 1, a desk 2, a desk 1, and a safe 1.\n\nYour task is to: put a pen in safe."
)
ACTIONS = ["go to bed 1", "go to desk 1", "help", "inventory", "look"]
SETTINGS = st.builds(
    AlfworldFormat,
    thinking=st.booleans(),
    history_length=st.integers(0, 4),
    require_admissible=st.booleans(),
    room_list=st.booleans(),
)
TAGS = st.sampled_from(
    ["<action>", "</action>", "<think>", "</think>", "<ACTION>", "look", " ", "\n", "\u4e2d", "\u0130"],
)
ANSWERS = st.one_of(st.text(), st.lists(st.one_of(TAGS, st.text(max_size=8)), max_size=12).map("".join))


def later_view(steps: int) -> EpisodeView:
    history = [(FIRST if i == 0 else f"seen {i}", f"did {i}") for i in range(steps)]
    return EpisodeView("put a pen in safe", f"seen {steps}" if steps else FIRST, ACTIONS, history)


def test_first_prompt_shows_observation_and_quoted_actions_without_help():
    text = AlfworldFormat().render(later_view(0))
    assert FIRST in text
    assert "Admissible actions:\n'go to bed 1'\n'go to desk 1'\n'inventory'\n'look'\n" in text
    assert "help" not in text
    assert "Steps taken" not in text


@given(steps=st.integers(1, 30), window=st.integers(0, 5))
def test_later_prompt_shows_exactly_the_window(steps, window):
    text = AlfworldFormat(history_length=window).render(later_view(steps))
    shown = min(steps, window)
    assert "put a pen in safe" in text
    assert f"Steps taken: {steps}." in text
    assert f"Step {steps + 1}. Observation: seen {steps}\n" in text
    numbers = [int(n) for n in re.findall(r", Action (\d+): 'did \d+'\]", text)]
    assert numbers == list(range(steps - shown + 1, steps + 1))
    for i in range(steps):
        assert (f"Action {i + 1}: 'did {i}'" in text) == (i >= steps - shown)


def test_room_list_is_off_by_default_and_keeps_the_rooms_order():
    view = later_view(5)
    assert "desk 2" not in AlfworldFormat().render(view)
    assert "Places: bed 1, desk 2, desk 1, safe 1\n" in AlfworldFormat(room_list=True).render(view)
    assert AlfworldFormat(room_list=True).render(later_view(0)) == AlfworldFormat().render(later_view(0))


def test_room_reader():
    assert room_places(FIRST) == ["bed 1", "desk 2", "desk 1", "safe 1"]
    assert room_places("You arrive at bed 1. On the bed 1, you see a pen 1.") == []


def test_thinking_switches_instruction_and_parser_together():
    on, off = AlfworldFormat(), AlfworldFormat(thinking=False)
    assert "<think>" in on.render(later_view(0)) and "<think>" not in off.render(later_view(3))
    assert "<action>" in on.render(later_view(0)) and "<action>" in off.render(later_view(3))
    bare = "<action>look</action>"
    assert off.parse(bare, ACTIONS) == ParsedAction("look", True)
    assert on.parse(bare, ACTIONS) == ParsedAction("look", False, "no <think>..</think>")
    assert on.parse(f"<think>hm</think>{bare}", ACTIONS) == ParsedAction("look", True)


@pytest.mark.parametrize(
    ("text", "action", "valid"),
    [
        ("<think>a</think><action> Go To Bed 1 </action>", "go to bed 1", True),
        ("<think>a</think><action>look</action><action>inventory</action>", "look", True),
        ("<think>a</think><action>fly</action>", "fly", True),  # well formed is enough unless asked otherwise
        ("<think>a</think><ACTION>look</ACTION>", "look", True),
        ("<think>a</think><action></action>", "", True),
        ("<think>a</think>" + "x" * 40 + "LOOK", "x" * 26 + "look", False),
        ("</action>look<action>", "</action>look<action>", False),
        ("<think>\u770b</think><action>look</action>", "look", False),
        ("<THINK>a</THINK><action>look</action>", "look", False),
        ("", "", False),
    ],
)
def test_projection_rules(text, action, valid):
    parsed = AlfworldFormat().parse(text, ACTIONS)
    assert parsed.action == action
    assert parsed.valid is valid
    assert bool(parsed.reason) is not valid


def test_strict_option_wants_an_admissible_action():
    strict = AlfworldFormat(thinking=False, require_admissible=True)
    assert strict.parse("<action>look</action>", ACTIONS).valid
    refused = strict.parse("<action>fly</action>", ACTIONS)
    assert (refused.action, refused.valid) == ("fly", False)


@given(settings=SETTINGS, action=st.sampled_from(ACTIONS), thought=st.text(alphabet="abc .\n", max_size=30))
def test_well_formed_answers_round_trip(settings, action, thought):
    think = f"<think>{thought}</think>" if settings.thinking else ""
    assert settings.parse(f"{think}<action>{action}</action>", ACTIONS) == ParsedAction(action, True)


@given(settings=SETTINGS, text=ANSWERS)
def test_parse_never_raises_and_follows_the_rules(settings, text):
    parsed = settings.parse(text, ACTIONS)
    lowered = text.lower()
    match = re.search("<action>(.*?)</action>", lowered, re.DOTALL)
    assert parsed.action == (match[1].strip() if match else lowered[-30:])
    expected = match is not None
    if settings.thinking:
        expected = expected and "<think>" in text and "</think>" in text
    if settings.require_admissible:
        expected = expected and parsed.action in ACTIONS
    assert parsed.valid == (expected and not any("\u4e00" <= c <= "\u9fff" for c in text))


def test_negative_history_is_refused():
    with pytest.raises(EnvError, match="history_length"):
        AlfworldFormat(history_length=-1)
