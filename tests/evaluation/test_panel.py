import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdar_envs.base import TaskRef

from sdar_verl.evaluation.panel import Panel, PanelError


def tasks(counts: dict[str, int], split: str = "valid_seen") -> list[TaskRef]:
    return [TaskRef(f"{kind}/{i}", kind, split, f"/games/{kind}/{i}") for kind, n in counts.items() for i in range(n)]


counts = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9), min_size=1)


@given(counts, st.integers(), st.data())
def test_selection_is_as_balanced_as_the_types_allow(counts, seed, data):
    size = data.draw(st.integers(1, sum(counts.values())))
    panel = Panel.from_tasks(tasks(counts), size, seed, env="alfworld")
    assert len(panel) == size
    chosen = Counter(task.task_type for task in panel.tasks)
    for kind, available in counts.items():
        # a type may lag behind another by more than one only when it has no tasks left
        assert chosen[kind] == available or chosen[kind] >= max(chosen.values()) - 1


@given(counts, st.integers(0, 1000), st.randoms(use_true_random=False))
def test_selection_depends_on_the_tasks_not_on_their_order(counts, seed, shuffler: random.Random):
    given_order = tasks(counts)
    shuffled = given_order[:]
    shuffler.shuffle(shuffled)
    size = max(1, len(given_order) // 2)
    first = Panel.from_tasks(given_order, size, seed, env="alfworld")
    second = Panel.from_tasks(shuffled, size, seed, env="alfworld")
    assert first == second and first.hash == second.hash


def test_smaller_panel_is_a_prefix_of_a_larger_one_and_seeds_differ():
    pool = tasks({"a": 20, "b": 20, "c": 20})
    large, small = (Panel.from_tasks(pool, n, 3, env="alfworld") for n in (30, 9))
    assert large.tasks[:9] == small.tasks
    assert {t.id for t in Panel.from_tasks(pool, 9, 4, env="alfworld").tasks} != {t.id for t in small.tasks}


def test_hash_is_known_and_moves_with_every_part_of_the_identity():
    pool = tasks({"a": 2, "b": 1})
    panel = Panel("alfworld", "valid_seen", tuple(pool))
    # sha256 of the JSON list of environment, split and (id, type) pairs, made with sha256sum
    assert panel.hash == "6dbc7d4306e3a27e65d451e0b303472d6af6ee6fcc18aacb0328a71897965bdc"
    others = [
        Panel("webshop", "valid_seen", tuple(pool)),
        Panel("alfworld", "valid_seen", tuple(reversed(pool))),
        Panel("alfworld", "valid_seen", tuple(pool[:2])),
        Panel("alfworld", "valid_seen", (TaskRef("a/0", "b", "valid_seen"), *pool[1:])),
        Panel("alfworld", "train", tuple(tasks({"a": 2, "b": 1}, "train"))),
    ]
    assert len({panel.hash, *(other.hash for other in others)}) == 6
    moved = Panel("alfworld", "valid_seen", tuple(TaskRef(t.id, t.task_type, t.split, "/elsewhere") for t in pool))
    assert moved.hash == panel.hash
    assert panel.short_hash in panel.describe() and "a 2, b 1" in panel.describe()


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Panel("alfworld", "v", ()), "at least one task"),
        (lambda: Panel("alfworld", "v", (TaskRef("a", "t", "v"), TaskRef("a", "t", "v"))), "doubled: a"),
        (lambda: Panel("alfworld", "v", (TaskRef("a", "t", "w"),)), "cannot hold tasks of w"),
        (lambda: Panel.from_tasks([], 1, 0, env="alfworld"), "exactly one split"),
        (lambda: Panel.from_tasks(tasks({"a": 3}), 4, 0, env="alfworld"), "ask for 1 to 3"),
        (lambda: Panel.from_tasks(tasks({"a": 3}), 0, 0, env="alfworld"), "ask for 1 to 3"),
        (lambda: Panel.from_tasks([TaskRef("a", "t", "v"), TaskRef("b", "t", "w")], 1, 0, env="x"), "one split"),
    ],
)
def test_impossible_panels_are_refused(build, message):
    with pytest.raises(PanelError, match=message):
        build()


def test_save_and_load_keep_the_panel_without_paths(tmp_path):
    panel = Panel.from_tasks(tasks({"a": 4, "b": 3}), 5, 0, env="alfworld")
    panel.save(tmp_path / "run" / "panel.json")
    text = (tmp_path / "run" / "panel.json").read_text()
    assert "/games" not in text
    loaded = Panel.load(tmp_path / "run" / "panel.json")
    assert loaded.hash == panel.hash and [t.id for t in loaded.tasks] == [t.id for t in panel.tasks]
    assert loaded.resolve(tasks({"a": 4, "b": 3})) == panel
    assert list((tmp_path / "run").iterdir()) == [tmp_path / "run" / "panel.json"]


def test_changed_or_foreign_files_are_refused(tmp_path):
    panel = Panel.from_tasks(tasks({"a": 4}), 4, 0, env="alfworld")
    path = tmp_path / "panel.json"
    panel.save(path)
    content = json.loads(path.read_text())
    content["tasks"].reverse()
    path.write_text(json.dumps(content))
    with pytest.raises(PanelError, match="was changed"):
        Panel.load(path)
    for text, message in [("{", "cannot read"), ("[]", "no panel of format"), ('{"format": 2}', "no panel of format")]:
        path.write_text(text)
        with pytest.raises(PanelError, match=message):
            Panel.load(path)
    path.write_text('{"format": 1, "env": "alfworld", "split": "v", "hash": "x", "tasks": [{"id": "a"}]}')
    with pytest.raises(PanelError, match="task_type"):
        Panel.load(path)
    with pytest.raises(PanelError, match="cannot read"):
        Panel.load(tmp_path / "none.json")


def test_resolve_names_missing_and_retyped_tasks():
    panel = Panel.from_tasks(tasks({"a": 3}), 3, 0, env="alfworld")
    with pytest.raises(PanelError, match="1 of 3 panel tasks.*a/2"):
        panel.resolve(tasks({"a": 2}))
    with pytest.raises(PanelError, match="another type"):
        panel.resolve([TaskRef(t.id, "b", t.split) for t in panel.tasks])


def test_mixing_panels_names_what_differs():
    one, two = (Panel.from_tasks(tasks({"a": n}), n, 0, env="alfworld") for n in (3, 4))
    one.require_same(Panel.from_tasks(tasks({"a": 3}), 3, 0, env="alfworld"))
    with pytest.raises(PanelError, match="only in sdar: a/3") as caught:
        one.require_same(two, "grpo", "sdar")
    assert one.short_hash in str(caught.value) and two.short_hash in str(caught.value)
    with pytest.raises(PanelError, match="another order"):
        one.require_same(Panel("alfworld", "valid_seen", tuple(reversed(one.tasks))))
