"""What the shipped skill texts promise: every task type is reached, in a form an agent can use."""

import re

import pytest
from sdar_envs import registry

from sdar_verl.skills import SkillQuery, open_store, retrievers, shipped_sets
from sdar_verl.skills.coverage import require_coverage

TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
SETS = ("alfworld", "alfworld_tiny")
WEBSHOP = registry.get("webshop").task_types


def test_these_are_all_shipped_sets():
    assert shipped_sets() == (*SETS, "search_qa", "search_qa_tiny", "webshop", "webshop_tiny")


@pytest.mark.parametrize("env", ["search_qa", "webshop"])
def test_the_tiny_models_sets_cover_every_type_in_few_words(env):
    task_types = registry.get(env).task_types
    store = open_store(f"{env}_tiny", env=env, task_types=task_types)
    require_coverage(store, env, task_types)
    assert len({skill.text for skill in store.all()}) == len(task_types) + 1
    assert all(len(skill.text.split()) <= 30 for skill in store.all())


@pytest.mark.parametrize("name", SETS)
def test_every_task_type_of_the_environment_is_covered(name):
    task_types = registry.get("alfworld").task_types
    assert set(task_types) == set(TASK_TYPES)
    require_coverage(open_store(name, env="alfworld", task_types=task_types), "alfworld", task_types)


@pytest.mark.parametrize("task_type", TASK_TYPES)
@pytest.mark.parametrize("name", SETS)
def test_rules_reaches_every_task_type_and_only_that(name, task_type):
    skills = retrievers.make("rules", open_store(name)).retrieve(SkillQuery("alfworld", task_type, "a/b"))
    specific = [skill for skill in skills if not skill.is_general]
    assert specific
    assert {skill.task_type for skill in specific} == {task_type}
    assert skills[0].is_general


@pytest.mark.parametrize("name", SETS)
def test_no_two_skills_say_the_same(name):
    skills = open_store(name).all()
    assert len({skill.text for skill in skills}) == len(skills)


def test_lengths_stay_within_a_small_models_reach():
    skills = open_store("alfworld").all()
    general = [skill for skill in skills if skill.is_general]
    assert len(general) >= 3
    assert 2000 <= sum(len(skill.text) for skill in general) <= 3000
    assert all(1000 <= len(skill.text) <= 1500 for skill in skills if not skill.is_general)
    assert all(len(skill.text.split()) <= 30 for skill in open_store("alfworld_tiny").all())


@pytest.mark.parametrize("name", SETS)
def test_texts_name_the_tool_that_their_task_needs(name):
    tools = {
        "pick_clean_then_place_in_recep": r"clean .* with sinkbasin",
        "pick_heat_then_place_in_recep": r"heat .* with microwave",
        "pick_cool_then_place_in_recep": r"cool .* with fridge",
        "look_at_obj_in_light": r"use (the lamp|desklamp)",
        "pick_two_obj_and_place": r"second|other",
        "pick_and_place_simple": r"move .* to",
    }
    for skill in open_store(name).all():
        if skill.task_type:
            assert re.search(tools[skill.task_type], skill.text)


@pytest.mark.parametrize("task_type", WEBSHOP)
def test_rules_reaches_every_product_family_and_only_that(task_type):
    store = open_store("webshop", env="webshop", task_types=WEBSHOP)
    require_coverage(store, "webshop", WEBSHOP)
    skills = retrievers.make("rules", store).retrieve(SkillQuery("webshop", task_type, "synthetic/0-233/1"))
    specific = [skill for skill in skills if not skill.is_general]
    assert [skill.task_type for skill in specific] == [task_type]
    assert len(skills) - len(specific) >= 3 and skills[0].is_general


def test_webshop_texts_fit_and_name_real_actions():
    skills = open_store("webshop").all()
    assert len({skill.text for skill in skills}) == len(skills)
    assert 2500 <= sum(len(skill.text) for skill in skills if skill.is_general) <= 4000
    assert all(1000 <= len(skill.text) <= 1500 for skill in skills if not skill.is_general)
    quoted = [action for skill in skills for action in re.findall(r"`([^`]+)`", skill.text)]
    assert quoted and all(re.fullmatch(r"(search|click)\[.+\]", action) for action in quoted)
