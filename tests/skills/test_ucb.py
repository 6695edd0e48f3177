"""`ucb`: the formula, what it explores, what it settles on; its statistics, their order, their files."""

from __future__ import annotations

import json
import math
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdar_verl.skills import MemoryStore, MissingSkillError, Skill, SkillError, SkillQuery, retrievers
from sdar_verl.skills.retrievers import RetrieverOptions
from sdar_verl.skills.retrievers.ucb import bounds
from sdar_verl.skills.statistics import FILE, Outcome, SkillStatistics, Tally

TYPES = ["cool", "heat", "look"]


def skill(id, task_type=None, env="alfworld"):
    return Skill(id, f"text of {id}", env, task_type, 1, "test")


STORE = MemoryStore(
    [skill("g1"), skill("g2"), skill("cool1", "cool"), skill("heat1", "heat"), skill("look1", "look")]
    + [skill("look2", "look"), skill("shop", "look", "webshop"), skill("shop-general", None, "webshop")]
)
ARMS = ["cool1", "heat1", "look1", "look2"]

scores = st.floats(-1e6, 1e6, allow_nan=False)
outcomes = st.builds(
    Outcome,
    st.sampled_from(TYPES),
    st.lists(st.sampled_from(["g1", *ARMS]), max_size=3).map(tuple),
    scores,
)
steps = st.lists(st.lists(outcomes, max_size=8), max_size=6)


def follow(played, statistics=None):
    statistics = statistics or SkillStatistics()
    for episodes in played:
        statistics = statistics.after(statistics.step + 1, episodes)
    return statistics


def choose(run_dir, step, task_type="look", c=1.0):
    retriever = retrievers.make("ucb", STORE, options=RetrieverOptions(run_dir, c))
    return [s.id for s in retriever.retrieve(SkillQuery("alfworld", task_type, "t/1", step=step))]


# --- statistics ---------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(steps)
def test_counts_and_sums_are_those_of_a_plain_count(played):
    found = follow(played)
    assert found.step == len(played)
    flat = [episode for episodes in played for episode in episodes]
    for task_type in TYPES:
        for arm in ["g1", *ARMS]:
            own = [e.score for e in flat if e.task_type == task_type and arm in e.skills]
            tally = found.tally(task_type, arm)
            assert tally.count == len(own)
            exact = sum(map(Fraction, own), Fraction(0))
            assert abs(Fraction(tally.total) - exact) <= Fraction(1e-15) * sum(map(abs, map(Fraction, own))) * 8


@settings(max_examples=60)
@given(steps, st.randoms(use_true_random=False))
def test_the_order_of_a_steps_episodes_changes_nothing(played, shuffle):
    mixed = [shuffle.sample(episodes, len(episodes)) for episodes in played]
    assert follow(mixed) == follow(played)


@settings(max_examples=30)
@given(steps, st.integers(0, 6))
def test_saved_and_loaded_anywhere_goes_on_the_same(tmp_path_factory, played, at):
    folder = tmp_path_factory.mktemp("statistics")
    before = follow(played[:at])
    before.save(folder)
    assert SkillStatistics.load(folder) == before
    assert follow(played[at:], SkillStatistics.load(folder)) == follow(played)


def test_a_lost_step_and_a_score_that_is_no_number_are_refused():
    known = follow([[], []])
    assert known.after(2, []).step == 2  # more of the same step
    for step in (0, 1, 4):
        with pytest.raises(SkillError, match="a step is lost"):
            known.after(step, [])
    with pytest.raises(SkillError, match="which is no number"):
        known.after(3, [Outcome("look", ("look1",), math.nan)])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"step": 1}',
        '{"step": -1, "tallies": {}}',
        '{"step": true, "tallies": {}}',
        '{"step": 1, "tallies": {"look": {"a": {"count": 0, "total": 1}}}}',
        '{"step": 1, "tallies": {"look": {"a": {"count": 1.5, "total": 1}}}}',
        '{"step": 1, "tallies": {"look": {"a": {"count": 1, "total": NaN}}}}',
        '{"step": 1, "tallies": {"look": {"a": {"count": 1}}}}',
        '{"step": 1, "tallies": {"look": 3}}',
    ],
)
def test_damaged_statistics_are_refused(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(SkillError, match="are damaged"):
        SkillStatistics.load(tmp_path)


def test_missing_statistics_are_refused(tmp_path):
    with pytest.raises(SkillError, match="cannot read the skill statistics"):
        SkillStatistics.load(tmp_path)


# --- the choice ---------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 50), scores), min_size=1, max_size=6), st.floats(0, 10))
def test_bounds_are_the_papers_formula(tallies, c):
    found = bounds([Tally(n, total) for n, total in tallies], c)
    plays = sum(n for n, _ in tallies)
    for (n, total), value in zip(tallies, found, strict=True):
        assert value == pytest.approx(total / n + c * (math.log(plays) / n) ** 0.5)


def test_the_general_skills_and_one_other(tmp_path):
    assert choose(tmp_path, 1) == ["g1", "g2", "look1"]  # nothing known: the task's own type, in the store's order
    assert choose(tmp_path, 1, "heat") == ["g1", "g2", "heat1"]


def test_every_skill_is_tried_before_one_is_repeated(tmp_path):
    statistics, tried = SkillStatistics(), []
    for step in range(1, 5):
        chosen = choose(tmp_path, step)[-1]
        tried.append(chosen)
        statistics = statistics.after(step, [Outcome("look", ("g1", "g2", chosen), 0.0)])
        statistics.save(tmp_path)
    assert tried == ["look1", "look2", "cool1", "heat1"]


def test_types_learn_apart(tmp_path):
    seen = [Outcome("look", (arm,), float(arm == "heat1")) for arm in ARMS]
    SkillStatistics().after(1, seen).save(tmp_path)
    assert choose(tmp_path, 2, "look")[-1] == "heat1"
    assert choose(tmp_path, 2, "cool")[-1] == "cool1"  # never played: its own first


def test_without_exploration_it_keeps_to_the_best_mean(tmp_path):
    seen = [Outcome("look", ("look1",), 1.0)] * 99 + [Outcome("look", (arm,), 0.9) for arm in ARMS[:2] + ["look2"]]
    SkillStatistics().after(1, seen).save(tmp_path)
    assert choose(tmp_path, 2, c=0.0)[-1] == "look1"
    assert choose(tmp_path, 2, c=1.0)[-1] != "look1"


def test_it_settles_on_the_skill_that_helps(tmp_path):
    """Bernoulli wins of 8 episodes a step: the best skill is shown most; random choice would show it a quarter."""
    rate, draw = dict(zip(ARMS, (0.2, 0.3, 0.35, 0.8), strict=True)), random.Random(5)
    statistics, shown = SkillStatistics(), []
    for step in range(1, 101):
        chosen = choose(tmp_path, step)[-1]
        shown.append(chosen)
        statistics = statistics.after(
            step, [Outcome("look", (chosen,), float(draw.random() < rate[chosen])) for _ in range(8)]
        )
        statistics.save(tmp_path)
    assert shown.count("look2") > 75
    assert set(shown) == set(ARMS)


def test_statistics_of_another_step_are_refused(tmp_path):
    follow([[], [], []]).save(tmp_path)
    assert choose(tmp_path, 4)
    for step in (2, 3, 5):
        with pytest.raises(SkillError, match=f"are of step 3, step {step} needs those of step {step - 1}"):
            choose(tmp_path, step)
    with pytest.raises(SkillError, match="has none; this is a bug"):
        choose(tmp_path, None)
    with pytest.raises(SkillError, match="needs the run's folder"):
        choose(None, 2)


def test_a_new_step_is_read_again(tmp_path):
    retriever = retrievers.make("ucb", STORE, options=RetrieverOptions(tmp_path))
    query = [SkillQuery("alfworld", "look", "t/1", step=step) for step in (2, 3)]
    statistics = SkillStatistics().after(1, [Outcome("look", ("look1",), 0.0)])
    statistics.save(tmp_path)
    assert retriever.retrieve(query[0])[-1].id == "look2"
    (tmp_path / FILE).write_text("{")  # not looked at twice in a step
    assert retriever.retrieve(query[0])[-1].id == "look2"
    statistics.after(2, [Outcome("look", ("look2",), 0.0)]).save(tmp_path)
    assert retriever.retrieve(query[1])[-1].id == "cool1"


def test_it_needs_something_to_choose_from():
    only_general = MemoryStore([skill("g")])
    with pytest.raises(MissingSkillError, match="to choose from"):
        retrievers.make("ucb", only_general).retrieve(SkillQuery("alfworld", "look", "t", step=1))
    allowed = retrievers.make("ucb", only_general, allow_missing=True)
    assert [s.id for s in allowed.retrieve(SkillQuery("alfworld", "look", "t", step=1))] == ["g"]


def test_the_file_is_readable_and_exact(tmp_path):
    third = 1 / 3
    SkillStatistics().after(1, [Outcome("look", ("look1", "look1"), third)]).save(tmp_path)
    assert json.loads((tmp_path / FILE).read_text()) == {
        "step": 1,
        "tallies": {"look": {"look1": {"count": 1, "total": third}}},
    }
