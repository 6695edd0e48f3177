"""WebShop behind the common contract: episodes, prompts, parser, scripted shoppers, the worker pool."""

import asyncio
import subprocess
import sys

import pytest
import webshop_world as world
from sdar_envs import registry
from sdar_envs.base import EnvError, EpisodeView, TaskRef
from sdar_envs.pool import EnvPool
from sdar_envs.webshop import FAMILY, TASK_TYPES
from sdar_envs.webshop.env import SEARCH_ACTION, WebshopEnv
from sdar_envs.webshop.expert import Expert, Wish, read_wish
from sdar_envs.webshop.format import WebshopFormat, quoted
from sdar_envs.webshop.session import Session


def tasks(split="train", **changes):
    return FAMILY.tasks(world.config(**changes), split)


def play(task, choose, **changes):
    """Play to the end; `choose` gets the view. Returns (reward, terminated, truncated, last info, actions)."""
    env = FAMILY.make_env(world.config(**changes))
    observation, info = env.reset(task=task)
    view = EpisodeView(info["task_description"], observation, info["admissible_actions"])
    while True:
        action = choose(view)
        view.history.append((view.observation, action))
        view.observation, reward, terminated, truncated, info = env.step(action)
        view.admissible_actions = info["admissible_actions"]
        if terminated or truncated:
            return reward, terminated, truncated, info, [action for _, action in view.history]


def follow(actions):
    """A player of these actions."""
    left = iter(actions)
    return lambda view: next(left)


def test_the_registry_knows_it():
    assert registry.get("webshop") is FAMILY and "webshop" in registry.names()
    assert FAMILY.task_types == TASK_TYPES


def test_an_episode_ends_by_a_purchase_or_by_its_steps():
    task = tasks()[0]
    env = FAMILY.make_env(world.config(max_steps=3))
    observation, info = env.reset(task=task, seed=5)
    assert info["admissible_actions"] == [SEARCH_ACTION, "click[search]"]
    assert info["task_description"] in observation
    assert (info["task_id"], info["task_type"], info["step"], info["won"], info["score"]) == (
        task.id, task.task_type, 0, False, 0.0,
    )  # fmt: skip
    for step in (1, 2, 3):
        _, reward, terminated, truncated, info = env.step("nonsense")
        assert (reward, terminated, truncated, info["step"]) == (0.0, False, step == 3, step)
    with pytest.raises(EnvError, match="call reset"):
        env.step("search[x]")
    env.reset(task=task)
    env.step("search[lamp]")
    _, _, _, _, info = env.step("click[next >]")
    assert not info["won"]
    env.close()
    env.close()
    with pytest.raises(EnvError, match="closed"):
        env.reset(task=task)


def test_reward_is_all_or_nothing_or_the_score():
    won = lost = 0
    for task in tasks()[:60]:
        reward, terminated, _, info, played = play(task, follow(FAMILY.reference(world.config(), task)))
        assert terminated and reward == (10.0 if info["won"] else 0.0)
        share, *_ = play(task, follow(played), reward="score", success_reward=2.0)
        assert share == pytest.approx(2.0 * info["score"])
        won, lost = won + info["won"], lost + (not info["won"])
    assert won > 50, "the product that a goal was made from is nearly always worth 1.0"


def test_the_fair_shopper_wins_most_and_reads_only_the_view():
    chosen = tasks()[::5]
    shopper = Expert()
    results = [play(task, shopper.act) for task in chosen]
    assert all(terminated for _, terminated, *_ in results), "it buys before its steps run out"
    assert sum(info["won"] for *_, info, _ in results) > 0.7 * len(chosen)
    human = [play(task, Expert().act) for task in tasks(goals="human", test_size=0, eval_size=0)]
    assert sum(info["won"] for *_, info, _ in human) > 0.7 * len(human)


def test_the_shopper_copes_with_states_that_others_reached():
    """It labels any state with an action that the page offers."""
    task = tasks()[3]
    env = FAMILY.make_env(world.config(max_steps=200))
    observation, info = env.reset(task=task)
    view = EpisodeView(info["task_description"], observation, info["admissible_actions"])
    for number in range(150):
        labelled = Expert().act(view)
        assert labelled in view.admissible_actions or labelled.startswith("search["), (labelled, view.observation)
        offered = [
            a for a in (*view.admissible_actions, "search[cotton rug]") if a not in ("click[buy now]", SEARCH_ACTION)
        ]
        action = offered[(number * 7) % len(offered)]
        view.history.append((view.observation, action))
        view.observation, _, _, _, info = env.step(action)
        view.admissible_actions = info["admissible_actions"]


def test_instructions_are_taken_apart():
    wishes = "color: a, b and c, and fit type: men"
    text = f"Find me slim fit men's shirts with long sleeve with {wishes}, and price lower than 40.00 dollars"
    assert read_wish(text) == Wish(
        "slim fit men's shirts with long sleeve", (("color", "a, b and c"), ("fit type", "men")), 40.0
    )
    assert read_wish("i want a rug") == Wish("a rug", (), None)
    assert read_wish("Find me tea with flavor: mint").options == (("flavor", "mint"),)


def test_prompts_hold_what_the_contract_shows():
    visit = Session(world.shop(), world.shop().goals("synthetic", 0, 233), world.shop().goals("synthetic", 0, 233)[0])
    task = visit.goal.text
    view = EpisodeView(task, visit.observation, [SEARCH_ACTION, "click[search]"])
    prompt = WebshopFormat().render(view)
    assert prompt.count(task) == 1 and "Observation: 'Search'\n" in prompt
    assert f"'{SEARCH_ACTION}',\n'click[search]',\n" in prompt and "<think>" in prompt
    for action in ("search[a]", "search[b]", "search[c]"):
        view.history.append((visit.observation, action))
        visit.act(action)
        view.observation = visit.observation
    prompt = WebshopFormat(history_length=2).render(view)
    assert "Steps taken: 3. The last 2:" in prompt and "Action 3: 'search[c]'" in prompt and "search[a]" not in prompt
    assert prompt.count(task) == 1 and "You are at step 4." in prompt
    assert "search[c]" not in WebshopFormat(history_length=0).render(view)
    view.history.append(("x" * 13_000, "click[y]"))
    assert "Steps taken" not in WebshopFormat().render(view), "too long: without history"
    assert "<think>" not in WebshopFormat(thinking=False).render(view)
    assert quoted("a [SEP] b", "c") == "a [SEP] b"


def test_instructions_and_past_pages_may_be_left_out():
    page = "Instruction: [SEP] find a lamp [SEP] Red Lamp"
    view = EpisodeView("find a lamp", page, ["click[red]"], [("Search", "search[lamp]"), (page, "click[b0]")])
    whole = WebshopFormat(thinking=False).render(view)
    assert "Observation 2: ''Red Lamp'', Action 2: 'click[b0]'" in whole
    bare = WebshopFormat(thinking=False, instructions=False, history_pages=False).render(view)
    assert bare.splitlines() == [
        "Task: find a lamp",
        "Steps taken: 2. The last 2:",
        "[Action 1: 'search[lamp]']",
        "[Action 2: 'click[b0]']",
        "You are at step 3.",
        "Observation: 'Red Lamp'",
        "Admissible actions:",
        "'click[red]',",
    ]
    with pytest.raises(EnvError, match="nothing asks for thinking"):
        WebshopFormat(instructions=False)


@pytest.mark.parametrize(
    ("text", "action", "valid"),
    [
        ("<think>a</think><action> Search[Red LAMP] </action>", "search[red lamp]", True),
        ("<action>click[x]</action>", "click[x]", False),
        ("<think>a</think><action>click[x]", "a</think><action>click[x]"[-20:], False),
        ("", "", False),
        ("<think>\u4e2d</think><action>click[x]</action>", "click[x]", False),
        ("<think></think><ACTION>click[a]</ACTION><action>click[b]</action>", "click[a]", True),
        ("</action><think></think><action>click[a]</action>", "", True),
    ],
)
def test_actions_are_read_as_the_contract_reads_them(text, action, valid):
    parsed = WebshopFormat().parse(text, [])
    assert (parsed.action, parsed.valid) == (action, valid)


def test_admissible_actions_may_be_demanded():
    strict = WebshopFormat(thinking=False, require_admissible=True)
    assert strict.parse("<action>search[x]</action>", [SEARCH_ACTION]).valid
    assert not strict.parse("<action>search[x]</action>", ["click[a]"]).valid
    assert strict.parse("<action>click[a]</action>", ["click[a]"]).valid
    assert WebshopFormat(thinking=False).parse("<action>click[b]</action>", ["click[a]"]).valid


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_root": None}, "data_root is not set"),
        ({"data_root": "/nowhere"}, "neither of"),
        ({"wrong_key": 1}, "unknown keys under env.webshop: wrong_key"),
        ({"max_steps": 0}, "max_steps"),
        ({"success_reward": -1}, "success_reward"),
        ({"reward": "dense"}, "known: success, score"),
    ],
)
def test_wrong_settings(changes, message):
    with pytest.raises(EnvError, match=message):
        FAMILY.make_env(world.config(**changes))


def test_a_foreign_task_is_refused():
    env = WebshopEnv(world.shop())
    with pytest.raises(EnvError, match="is no WebShop task"):
        env.reset(task=TaskRef("pick_and_place/trial", "garden", "train"))


def test_in_worker_processes():
    wanted = tasks()[:6]

    async def one(pool, task):
        async with pool.session() as session:
            observation, info = await session.reset(task)
            actions = FAMILY.reference(world.config(), task)
            for action in actions:
                observation, reward, terminated, truncated, info = await session.step(action)
            return terminated, info["task_id"], info["score"]

    async def run():
        async with EnvPool("webshop", world.config(), workers=2, envs_per_worker=2) as pool:
            return await asyncio.gather(*(one(pool, task) for task in wanted))

    results = asyncio.run(run())
    assert [name for _, name, _ in results] == [task.id for task in wanted]
    assert all(terminated for terminated, _, _ in results)


def test_it_needs_neither_torch_nor_verl():
    code = (
        "import sys, sdar_envs.webshop.parity, sdar_envs.webshop.env, sdar_envs.webshop.generate\n"
        "bad = {'torch', 'verl', 'sdar_verl', 'spacy', 'flask', 'jnius', 'bs4'} & set(sys.modules)\n"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
