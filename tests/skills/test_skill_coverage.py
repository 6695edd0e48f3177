import pytest

from sdar_verl.skills import MemoryStore, MissingSkillError, Skill
from sdar_verl.skills.coverage import has_task_skill, missing_task_types, require_coverage

GENERAL = Skill("g", "general", "alfworld", None, 1, "test")
LOOK = Skill("l", "look", "alfworld", "look", 1, "test")
SHOP = Skill("s", "shop", "webshop", "heat", 1, "test")
STORE = MemoryStore([GENERAL, LOOK, SHOP])


def test_missing_types_are_found_per_environment():
    assert missing_task_types(STORE, "alfworld", ["heat", "look", "cool"]) == ["heat", "cool"]
    assert missing_task_types(STORE, "webshop", ["heat"]) == []


def test_missing_types_raise_unless_allowed():
    with pytest.raises(MissingSkillError, match="heat, cool; add"):
        require_coverage(STORE, "alfworld", ["look", "heat", "cool"])
    require_coverage(STORE, "alfworld", ["look", "heat"], allow_missing=True)
    require_coverage(STORE, "alfworld", ["look"])


def test_only_the_own_type_counts_as_task_specific():
    assert has_task_skill([GENERAL, LOOK], "look")
    assert not has_task_skill([GENERAL, LOOK], "heat")
    assert not has_task_skill([GENERAL], "look")
