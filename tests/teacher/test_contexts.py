"""What a teacher is shown of its group: whose episode, in which words, and SDPO's rules between the parts."""

from dataclasses import replace

import pytest
from sdar_envs.base import TaskRef

from sdar_verl.skills import MemoryStore, MissingSkillError, Skill, retrievers
from sdar_verl.teacher.contexts import (
    Attempt,
    AttemptTurn,
    CombinedContext,
    DemonstrationContext,
    FeedbackContext,
    ReferenceContext,
    Situation,
    SkillsContext,
    Success,
    Transcript,
    part_of,
)

TASK = TaskRef("room/1", "look", "train")
MARK = "<end>"  # what a tokenizer would take for the end of a turn


def attempt(session, won=False, reward=None, actions=("go", "look"), mark=""):
    turns = tuple(AttemptTurn(f"saw {i} of {session}", f"thought {a}{mark}", f"{a} {session}{mark}")
                  for i, a in enumerate(actions))  # fmt: skip
    return Attempt(session, won, 10.0 * won if reward is None else reward, turns, f"end of {session}")


def situation(own, *siblings):
    return Situation("toy", TASK, 0, own, tuple(siblings))


TRANSCRIPT = Transcript(lambda text: MARK not in text)
WON = Success(None)


def demonstration(success=WON, remove_thinking=True):
    return DemonstrationContext(success, TRANSCRIPT, remove_thinking=remove_thinking)


def texts(units):
    return [unit.text for unit in units]


def test_the_first_other_success_is_shown_turn_by_turn():
    units = demonstration().units(situation(attempt(1, won=True), attempt(0), attempt(2, True), attempt(3, True)))
    assert texts(units) == [
        "An earlier attempt at this very task, which succeeded:\n\nObservation: saw 0 of 2\nAction: go 2",
        "Observation: saw 1 of 2\nAction: look 2",
    ]
    assert {(unit.env, unit.task_type) for unit in units} == {("toy", "look")}
    assert [unit.id for unit in units] == ["context/demonstration/0", "context/demonstration/1"]
    assert {part_of(unit.id) for unit in units} == {"demonstration"}


def test_the_own_success_is_no_demonstration():
    assert demonstration().units(situation(attempt(1, won=True), attempt(0))) == []


def test_thinking_is_shown_when_asked_for():
    units = demonstration(remove_thinking=False).units(situation(attempt(0), attempt(1, won=True)))
    assert "Answer: thought go" in units[0].text and "Action:" not in units[0].text


@pytest.mark.parametrize(("threshold", "shown"), [(None, 2), (5.0, 1), (0.5, 1), (10.0, 2), (11.0, None)])
def test_a_threshold_on_the_reward_replaces_the_verdict(threshold, shown):
    own, near, won = attempt(0, reward=0.0), attempt(1, reward=7.0), attempt(2, won=True)
    units = demonstration(Success(threshold)).units(situation(own, near, won))
    assert all(f"of {shown}" in text for text in texts(units))
    assert bool(units) == (shown is not None)


def test_a_sibling_that_wrote_a_turns_end_is_passed_over():
    bad, good = attempt(1, won=True, mark=MARK), attempt(2, won=True)
    assert "of 2" in demonstration().units(situation(attempt(0), bad, good))[0].text
    assert demonstration().units(situation(attempt(0), bad)) == []


def test_feedback_tells_what_came_of_each_action_without_quoting_it():
    feedback = FeedbackContext(WON, TRANSCRIPT)
    assert texts(feedback.units(situation(attempt(0)))) == [
        "An earlier attempt at this task did not succeed. What the environment answered to it, in order:\n\nsaw 1 of 0",
        "end of 0",
    ]
    assert feedback.units(situation(attempt(0, won=True))) == []
    assert feedback.units(situation(replace(attempt(0), turns=()))) == []
    assert feedback.units(situation(None)) == []


def combined(*parts, only_without=True):
    return CombinedContext(parts, feedback_only_without_solution=only_without)


def shown(context, own, *siblings):
    return [part_of(unit.id) for unit in context.units(situation(own, *siblings))]


def test_an_attempt_that_was_cut_off_is_no_success_but_has_feedback():
    cut = replace(attempt(0, reward=3.0), failed="the episode used up its tokens")
    assert demonstration(Success(1.0)).units(situation(attempt(1), cut)) == []
    assert len(FeedbackContext(WON, TRANSCRIPT).units(situation(cut))) == 2


def test_feedback_gives_way_to_a_solution():
    parts = (FeedbackContext(WON, TRANSCRIPT), demonstration())
    lost, won = attempt(0), attempt(1, won=True)
    assert shown(combined(*parts), lost, won) == ["demonstration"] * 2
    assert shown(combined(*parts), lost, attempt(1)) == ["feedback"] * 2
    assert combined(*parts).units(situation(won, lost)) == [], "won alone: neither a sibling's success nor a failure"
    both = combined(*parts, only_without=False)
    assert shown(both, lost, won) == ["feedback"] * 2 + ["demonstration"] * 2


def test_whether_the_group_must_be_waited_for():
    solve = ReferenceContext(lambda task: ["go"])
    assert combined(solve, demonstration()).needs_group and not combined(solve).needs_group
    assert not combined().needs_group and combined().units(situation(None)) == []


def test_skills_and_reference_need_no_attempt():
    store = MemoryStore([Skill("s", "look well", "toy", "look", 1, "test")])
    skills = SkillsContext(retrievers.make("rules", store))
    solve = ReferenceContext(lambda task: ["go", task.id])
    found = combined(skills, solve).units(situation(None))
    assert texts(found) == ["look well", "These actions solve this very task:\ngo\nroom/1"]
    with pytest.raises(MissingSkillError, match="'room/1': no reference solution"):
        ReferenceContext(lambda task: []).units(situation(None))


def test_an_attempt_survives_a_channel_of_plain_values():
    assert Attempt.from_dict(attempt(3, won=True).to_dict()) == attempt(3, won=True)
