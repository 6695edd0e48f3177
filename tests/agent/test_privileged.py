"""The teacher's rows of a finished group: what they hold, and what happens when it does not fit."""

import pytest
from sdar_envs.base import TaskRef

from sdar_verl.agent.privileged import Privileged
from sdar_verl.lab.tokenizer import train_tokenizer
from sdar_verl.skills import MemoryStore, Skill, retrievers
from sdar_verl.teacher import TeacherPromptBuilder, TeacherPromptTooLong
from sdar_verl.teacher.contexts import (
    Attempt,
    AttemptTurn,
    CombinedContext,
    DemonstrationContext,
    Situation,
    SkillsContext,
    Success,
    Transcript,
)
from sdar_verl.teacher.templating import prompt_ids

TASK = TaskRef("room/1", "look", "train")
MESSAGES = [{"role": "user", "content": "look around"}]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(
        ["An earlier attempt at this very task, Observation: a room Action: go look around"] * 20, 360
    )


def attempt(session, won, turns=4):
    return Attempt(session, won, 0.0, tuple(AttemptTurn(f"room {i}", "go", f"go {i}") for i in range(turns)), "end")


def situation(won=True):
    return Situation("toy", TASK, 0, attempt(0, False), (attempt(1, won),))


def privileged(tokenizer, limit=400, overflow="shrink", skills=()):
    builder = TeacherPromptBuilder(tokenizer, "system", limit, heading="", overflow=overflow)
    parts = [DemonstrationContext(Success(None), Transcript(builder.accepts), remove_thinking=True)]
    if skills:
        parts.insert(0, SkillsContext(retrievers.make("rules", MemoryStore(skills), allow_missing=True)))
    return Privileged(CombinedContext(parts, feedback_only_without_solution=True), builder, None)


def test_a_row_with_a_demonstration_is_taught(tokenizer):
    row = privileged(tokenizer).teacher_row(MESSAGES, situation())
    said = tokenizer.decode(row.ids)
    assert all(f"Observation: room {i}\nAction: go {i}" in said for i in range(4))
    assert row.taught and not row.shrunk and row.parts == {"demonstration"}
    assert not row.task_skill, "a demonstration is no skill"


def test_a_row_without_one_sees_what_the_student_sees_and_is_not_taught(tokenizer):
    row = privileged(tokenizer).teacher_row(MESSAGES, situation(won=False))
    assert row.ids == prompt_ids(tokenizer, MESSAGES, {}) and not row.taught and row.parts == set()


def test_whole_turns_go_from_the_end_until_it_fits(tokenizer):
    whole = privileged(tokenizer).teacher_row(MESSAGES, situation())
    row = privileged(tokenizer, limit=len(whole.ids) - 1).teacher_row(MESSAGES, situation())
    said = tokenizer.decode(row.ids)
    assert row.taught and row.shrunk and "go 2" in said and "go 3" not in said


def test_what_cannot_fit_at_all_is_not_taught_instead_of_ending_the_run(tokenizer):
    student = prompt_ids(tokenizer, MESSAGES, {})
    row = privileged(tokenizer, limit=len(student) + 3).teacher_row(MESSAGES, situation())
    assert row.ids == student and row.shrunk and not row.taught
    with pytest.raises(TeacherPromptTooLong):
        privileged(tokenizer, limit=len(student) + 3, overflow="raise").teacher_row(MESSAGES, situation())


def test_skills_beside_a_demonstration_are_counted_as_skills(tokenizer):
    general, own = (Skill(name, name, "toy", kind, 1, "test") for name, kind in (("general", None), ("own", "look")))
    row = privileged(tokenizer, skills=[general, own]).teacher_row(MESSAGES, situation(won=False))
    assert row.task_skill and row.taught and row.parts == {"skills"}
    row = privileged(tokenizer, skills=[general]).teacher_row(MESSAGES, situation())
    assert not row.task_skill and row.parts == {"skills", "demonstration"}
