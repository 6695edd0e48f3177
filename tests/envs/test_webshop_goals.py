"""Goals against a plain restatement of the original's rules; splits."""

import itertools
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import webshop_world as world
from sdar_envs.base import EnvError
from sdar_envs.webshop.catalogue import find_files, read_products
from sdar_envs.webshop.tasks import find_tasks, read_task_id


def plain_goals(kind, seed, shuffle_seed):
    """All goals as one list, made the long way: (id, text, attributes, cap, options), and the prices."""
    rng = Random(seed)
    products = list(read_products(find_files(world.data_root())))
    prices = {one.asin: rng.uniform(*one.prices) if len(one.prices) > 1 else one.prices[0] for one in products}
    goals = []

    def cap(asin):
        above = [p for p in (10.0 * i for i in range(1, 100)) if p > prices[asin]][:4]
        if len(above) < 2:
            return 1000000, ""
        upper = sorted(rng.sample(above, 2))[1]
        return upper, f", and price lower than {upper:.2f} dollars"

    for one in products:
        if kind == "human":
            for text, attributes, options in one.human:
                upper, said = cap(one.asin)
                goals.append((one.asin, text.strip(".") + said, attributes, upper, options))
        elif one.instruction is not None:
            upper, said = cap(one.asin)
            names = sorted(one.options)
            for values in itertools.product(*(one.options[name] for name in names)):
                pairs = tuple(zip(names, values, strict=True))
                wishes = ", and ".join(f"{name}: {value}" for name, value in pairs)
                text = f"{one.instruction}{' with ' + wishes if wishes else ''}{said}"
                goals.append((one.asin, text, one.instruction_attributes, upper, pairs))
    Random(shuffle_seed).shuffle(goals)
    return goals, prices


@pytest.mark.parametrize(("kind", "seed", "shuffle"), [("synthetic", 0, 233), ("synthetic", 5, 5), ("human", 1, 233)])
def test_goals_are_the_originals(kind, seed, shuffle):
    shop = world.shop()
    book = shop.goals(kind, seed, shuffle)
    goals, prices = plain_goals(kind, seed, shuffle)
    assert len(book) == len(goals) > 30
    here = [(g.asin, g.text, g.attributes, g.price_cap, g.options) for g in (book[i] for i in range(len(book)))]
    assert here == goals
    assert [prices[shop.product(number).asin] for number in range(world.PRODUCTS)] == book.prices.tolist()
    assert [book.category(i) for i in range(20)] == [shop.product(book[i].number).category for i in range(20)]


def test_a_product_that_nobody_can_choose_draws_a_price_cap_like_all_others():
    """An option without values leaves no goal of it; the caps of all later products must not move for that."""
    from sdar_envs.webshop.goals import GoalBook, _draw

    prepared = SimpleNamespace(
        prices=np.array([[15.0, np.nan]] * 4),
        instructed=np.array([1, 1, 0, 1], bool),
        combinations=np.array([2, 0, 0, 3]),
    )
    drawn = _draw(prepared, "synthetic", 0, 1)
    rng = Random(0)
    assert drawn["caps"].tolist() == [max(rng.sample([20.0, 30.0, 40.0, 50.0], 2)) for _ in range(3)]
    book = GoalBook.__new__(GoalBook)
    book._starts = drawn["starts"]
    assert [int(drawn["numbers"][book._unit(place)]) for place in range(5)] == [0, 0, 3, 3, 3]


def test_a_large_catalogues_goals_are_kept_in_files(monkeypatch, tmp_path):
    from sdar_envs.webshop import goals

    monkeypatch.setattr(goals, "_BIG", 10)
    shop = world.shop()
    plain = shop.goals("synthetic", 0, 233)
    for _ in range(2):  # drawn and written, then mapped
        book = goals.GoalBook(shop.prepared, shop.product, tmp_path, "synthetic", 0, 233)
        assert len(book) == len(plain) and book.prices.tolist() == plain.prices.tolist()
        assert [book[i] for i in range(0, len(book), 7)] == [plain[i] for i in range(0, len(book), 7)]
    assert [path.name for path in tmp_path.iterdir()] == [f"goals-{shop.prepared.content[:32]}-synthetic-0-233"]


def test_fewer_training_goals():
    every = find_tasks(world.shop(), "train", sizes=(5, 5))
    assert find_tasks(world.shop(), "train", sizes=(5, 5), most=12) == every[:12]
    assert len(find_tasks(world.shop(), "test", sizes=(5, 5), most=2)) == 5


def test_canonical_splits_are_apart_and_whole():
    parts = {
        split: [task.id for task in find_tasks(world.shop(), split, sizes=(30, 20))]
        for split in ("test", "eval", "train")
    }
    book = world.shop().goals("synthetic", 0, 233)
    assert parts["test"] == [f"synthetic/0-233/{number}" for number in range(30)]
    assert parts["eval"] == [f"synthetic/0-233/{number}" for number in range(30, 50)]
    assert parts["train"] == [f"synthetic/0-233/{number}" for number in range(50, len(book))]


def test_verl_agents_splits_leak_as_they_did(monkeypatch):
    from sdar_envs.webshop import tasks

    monkeypatch.setattr(tasks, "_VERL_AGENT_TEST", 50)
    shop = world.shop()
    train = find_tasks(shop, "train", scheme="verl_agent", workers=(16, 2))
    held = find_tasks(shop, "eval", scheme="verl_agent", workers=(16, 2))
    total = len(shop.goals("synthetic", 0, 0))
    assert len(train) == 16 * (total - 50) and len(held) == 2 * 50
    assert held[0].id == "synthetic/1000-1000/0" and train[0].id == "synthetic/0-0/50"

    def wishes(tasks):
        found = set()
        for task in tasks:
            kind, seed, shuffle, index = read_task_id(task.id)
            goal = shop.goals(kind, seed, shuffle)[index]
            found.add((goal.asin, goal.options))
        return found

    assert wishes(held) <= wishes(train)


def test_every_category_is_reached_and_can_be_chosen():
    from sdar_envs.webshop import TASK_TYPES
    from sdar_envs.webshop.prepare import CATEGORIES

    assert TASK_TYPES == CATEGORIES
    tasks = find_tasks(world.shop(), "train", sizes=(0, 0))
    assert {task.task_type for task in tasks} == set(TASK_TYPES)
    only = find_tasks(world.shop(), "train", sizes=(0, 0), task_types=["grocery"])
    assert only == [task for task in tasks if task.task_type == "grocery"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheme": "random"}, "known: canonical, verl_agent"),
        ({"split": "valid_seen"}, "there are: train, eval, test"),
        ({"scheme": "verl_agent", "split": "test"}, "there are: train, eval"),
        ({"kind": "machine"}, "known: synthetic, human"),
        ({"task_types": ["toys"]}, "got \\['toys'\\]"),
        ({"task_types": "beauty"}, "must be a list"),
        ({"task_types": []}, "must be a list"),
        ({"sizes": (10**6, 0)}, "no synthetic goals are left"),
    ],
)
def test_what_is_refused(changes, message):
    with pytest.raises(EnvError, match=message):
        find_tasks(world.shop(), **{"split": "train", **changes})


@pytest.mark.parametrize("name", ["", "synthetic/0-233", "synthetic/0-233/-1", "a/b", "synthetic/0-233/1/"])
def test_ids_that_are_none(name):
    with pytest.raises(EnvError, match="is no WebShop task"):
        read_task_id(name)


def test_a_goal_that_does_not_exist():
    with pytest.raises(EnvError, match="there is no goal 999999"):
        world.shop().goals("synthetic", 0, 233)[999999]
