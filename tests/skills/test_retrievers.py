import subprocess
import sys
from collections import Counter

import pytest

from sdar_verl.skills import MemoryStore, MissingSkillError, Skill, SkillError, SkillQuery, retrievers

TYPES = ("look", "heat", "cool")


def skill(id, task_type=None, env="alfworld"):
    return Skill(id, f"text of {id}", env, task_type, 1, "test")


STORE = MemoryStore(
    [skill("g1"), skill("g2"), skill("look1", "look"), skill("look2", "look"), skill("heat1", "heat")]
    + [skill("cool1", "cool"), skill("shop", None, "webshop"), skill("shop-look", "look", "webshop")]
)


def query(task_type="look", task_id="t/1", seed=0, env="alfworld"):
    return SkillQuery(env, task_type, task_id, seed)


def ids(name, *args, store=STORE, **options):
    q = query(*args) if not isinstance(args[0] if args else None, SkillQuery) else args[0]
    return [s.id for s in retrievers.make(name, store, **options).retrieve(q)]


def test_rules_gives_general_then_own_type_of_the_right_environment():
    assert ids("rules", "look") == ["g1", "g2", "look1", "look2"]
    assert ids("rules", "heat") == ["g1", "g2", "heat1"]
    assert ids("rules", query("look", env="webshop")) == ["shop", "shop-look"]


def test_full_gives_everything_own_type_before_others():
    assert ids("full", "heat") == ["g1", "g2", "heat1", "cool1", "look1", "look2"]


def test_none_gives_nothing_even_for_unknown_types():
    assert ids("none", "cook") == []


@pytest.mark.parametrize("name", ["rules", "full"])
def test_a_task_without_skill_raises_unless_allowed(name):
    with pytest.raises(MissingSkillError, match="'cook'.*cool, heat, look.*allow_missing"):
        ids(name, "cook")
    allowed = ids(name, "cook", allow_missing=True)
    assert allowed[:2] == ["g1", "g2"]
    assert (allowed == ["g1", "g2"]) == (name == "rules")


@pytest.mark.parametrize("name", ["rules", "full", "random", "wrong_task"])
def test_an_environment_without_skills_raises(name):
    with pytest.raises(SkillError, match="only for: alfworld, webshop"):
        ids(name, query(env="search"), allow_missing=True)


def test_random_needs_something_to_draw_from():
    only_general = MemoryStore([skill("g")])
    with pytest.raises(MissingSkillError, match="to draw from"):
        ids("random", store=only_general)
    assert ids("random", store=only_general, allow_missing=True) == ["g"]


def test_wrong_task_never_gives_the_own_type_and_reaches_all_others():
    for own in TYPES:
        drawn = [tuple(ids("wrong_task", own, f"t/{i}")) for i in range(200)]
        others = set(TYPES) - {own}
        assert {STORE.get(d[-1]).task_type for d in drawn} == others
        assert all(d[:2] == ("g1", "g2") for d in drawn)


def test_wrong_task_needs_a_second_type():
    with pytest.raises(MissingSkillError, match="two task types"):
        ids("wrong_task", "look", store=MemoryStore([skill("g"), skill("l", "look")]))


def test_random_draws_every_type_about_equally_often():
    counts = Counter(STORE.get(ids("random", "look", f"t/{i}")[-1]).task_type for i in range(600))
    assert set(counts) == set(TYPES)
    assert all(150 < n < 250 for n in counts.values()), counts  # mean 200, standard deviation 11.5


@pytest.mark.parametrize("name", ["random", "wrong_task"])
def test_draws_depend_on_task_and_both_seeds_only(name):
    base = [ids(name, "look", f"t/{i}") for i in range(40)]
    assert [ids(name, "look", f"t/{i}") for i in range(40)] == base
    assert [ids(name, "look", f"t/{i}", 1) for i in range(40)] != base
    assert [ids(name, "look", f"t/{i}", seed=1) for i in range(40)] != base


def test_draws_are_the_same_in_another_process():
    code = (
        "from sdar_verl.skills import *; from sdar_verl.skills import retrievers as r;"
        "s = open_store('alfworld');"
        "print([r.make('random', s).retrieve(SkillQuery('alfworld', 'x', str(i)))[-1].id for i in range(20)])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": h, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for h in ("1", "2")
    }  # fmt: skip
    assert len(outputs) == 1


def test_unknown_retriever_names_the_known_ones():
    with pytest.raises(SkillError, match="known: full, none, random, rules, semantic, ucb, wrong_task"):
        retrievers.make("best", STORE)
