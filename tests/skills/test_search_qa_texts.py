"""Search-QA's shipped skills: every question type is reached, from the questions themselves on."""

import pytest
from sdar_envs import registry
from sdar_envs.search_qa.question_types import SOURCES, TASK_TYPES, question_type

from sdar_verl.skills import SkillQuery, open_store, retrievers
from sdar_verl.skills.coverage import require_coverage

STORE = open_store("search_qa", env="search_qa", task_types=TASK_TYPES)


def test_every_question_type_is_covered():
    assert registry.get("search_qa").task_types == TASK_TYPES
    require_coverage(STORE, "search_qa", TASK_TYPES)


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_rules_reaches_every_type_and_only_that(task_type):
    skills = retrievers.make("rules", STORE).retrieve(SkillQuery("search_qa", task_type, "nq/000000"))
    assert {skill.task_type for skill in skills if not skill.is_general} == {task_type}
    assert sum(skill.is_general for skill in skills) == 4


@pytest.mark.parametrize(
    ("source", "question", "skill"),
    [
        *((source, "Where is it?", None) for source in SOURCES),
        ("2wikimultihopqa", "Which film came out first, This or That?", "search-qa/comparison"),
        ("hotpotqa", "Were Ada and Alan of the same nationality?", "search-qa/comparison"),
    ],
)
def test_official_questions_reach_their_skill(source, question, skill):
    """Also those with "for" in a template's words: only the question itself decides."""
    kind = question_type(source, question)
    found = retrievers.make("rules", STORE).retrieve(SkillQuery("search_qa", kind, f"{source}/000000"))
    assert [s.id for s in found if not s.is_general] == [skill or f"search-qa/{SOURCES[source]}"]


def test_lengths_stay_within_a_small_models_reach():
    skills = STORE.all()
    assert 2000 <= sum(len(skill.text) for skill in skills if skill.is_general) <= 3000
    assert all(1000 <= len(skill.text) <= 1500 for skill in skills if not skill.is_general)
    assert len({skill.text for skill in skills}) == len(skills)


def test_texts_use_the_tags_of_the_environment():
    for skill in STORE.all():
        if not skill.is_general:
            assert "<search>" in skill.text and "</search>" in skill.text
