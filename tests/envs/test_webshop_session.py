"""Pages, clicks and their odd corners."""

import json
import random
from dataclasses import replace

import pytest
import webshop_world as world
from hypothesis import given, settings
from hypothesis import strategies as st
from sdar_envs.webshop import pages
from sdar_envs.webshop.session import Session


def session(index=0, kind="synthetic"):
    shop = world.shop()
    book = shop.goals(kind, 0, 233)
    return Session(shop, book, book[index])


def with_options(**options):
    """A session whose catalogue shows one product's options changed, at that product's page."""
    visit = session()
    visit.act("search[lamp]")
    visit.act(f"click[{visit.clickables[-1]}]")
    changed = replace(visit.shop.product(visit._number), options=options)

    class Changed:
        def product(self, number):
            return changed if number == visit._number else world.shop().product(number)

        def __getattr__(self, name):
            return getattr(world.shop(), name)

    visit.shop = Changed()
    visit._show_item()
    return visit


def test_a_visit_from_start_to_purchase():
    visit = session()
    assert visit.observation == f"WebShop [SEP] Instruction: [SEP] {visit.goal.text} [SEP] Search"
    assert (visit.has_search_bar, visit.clickables) == (True, ["search"])
    visit.act("search[Table LAMP]")
    assert visit.clickables[:2] == ["back to search", "next >"] and len(visit.clickables) == 12
    texts = visit.observation.split(" [SEP] ")
    assert texts[:5] == ["Instruction:", visit.goal.text, "Back to Search", "Page 1 (Total results: 50)", "Next >"] or (
        texts[3].startswith("Page 1 (Total results: ")
    )
    target = visit.clickables[2]
    visit.act(f"click[{target.upper()}]")
    assert visit.clickables[:6] == ["back to search", "< prev", "description", "features", "reviews", "buy now"]
    assert visit.observation.endswith("Rating: N.A. [SEP] Description [SEP] Features [SEP] Reviews [SEP] Buy Now")
    visit.act("click[buy now]")
    assert visit.score is not None and visit.clickables == []
    assert f"asin [SEP] {target.upper()} [SEP] options [SEP] {{}} [SEP] attrs" in visit.observation
    assert visit.observation.endswith(f"[SEP] {visit.score.total} [SEP] Reward Details [SEP] None")
    after = visit.observation
    visit.act("click[back to search]")
    assert visit.observation == after, "nothing follows a purchase"


@pytest.mark.parametrize(
    "action",
    ["", "buy", "click[nothing]", "click[]", "search[]", "CLICK[search]", "click[search]", "think[x]", "a\n[b]"],
)
def test_what_is_no_action_changes_nothing(action):
    visit = session()
    before = visit.observation
    visit.act(action)
    assert (visit.observation, visit.clickables) == (before, ["search"])


def test_next_has_no_end_and_previous_does():
    visit = session()
    visit.act("search[cotton shirt]")
    assert "click[< prev]" not in visit.clickables
    for page in range(2, 9):
        visit.act("click[next >]")
        assert f"Page {page} (" in visit.observation
    assert visit.clickables == ["back to search", "< prev", "next >"]
    for _ in range(20):
        visit.act("click[< prev]")
    assert "Page 1 (" in visit.observation


def test_options_stay_over_details_and_go_with_the_list():
    visit = with_options(color=("red", "blue"), size=("9", "red"))
    visit.act("click[blue]")
    visit.act("click[red]")
    assert visit.options == {"color": "blue", "size": "red"}, "of equal values the last option counts"
    visit.act("click[features]")
    assert visit.clickables == ["back to search", "< prev"]
    visit.act("click[< prev]")
    assert visit.options == {"color": "blue", "size": "red"}
    visit.act("click[< prev]")
    assert visit.options == {} and "Page 1 (" in visit.observation


def test_options_named_like_buttons():
    visit = with_options(color=("buy now", "attributes", "next >", "search"))
    assert visit.clickables == [
        "back to search", "< prev", "description", "features", "reviews", "buy now", "attributes", "next >", "search",
    ]  # fmt: skip
    visit.act("click[next >]")
    assert visit.options == {"color": "next >"}
    visit.act("click[search]")
    assert visit.options == {"color": "next >"}
    visit.act("click[attributes]")
    product = visit.shop.product(visit._number)
    assert visit.observation.endswith(f"{product.category} [SEP] {product.query} [SEP] {product.product_category}")
    visit.act("click[< prev]")
    visit.act("click[buy now]")
    assert visit.score is not None


def test_a_query_that_looks_like_an_address():
    """The original tells pages by their address, which holds the query."""
    visit = session()
    visit.act("search[search_results lamp]")
    visit.act(f"click[{visit.clickables[-1]}]")
    visit.act("click[< prev]")
    assert "Page 0 (" in visit.observation and visit.clickables == ["back to search", "next >"]
    visit.act("search[item_page lamp]")
    visit.act(f"click[{visit.clickables[-1]}]")
    visit.act("click[description]")
    visit.act("click[< prev]")
    assert "Page 1 (" in visit.observation


def test_text_nodes():
    assert pages.join(["a", "", "\n ", "  ", "\u00a0", " b\n"]) == "a [SEP]  [SEP]  [SEP] b"
    product = replace(world.shop().product(0), bullets=("x", "", "\n"), description="")
    assert (
        pages.detail_page("i", product, "Features")
        == "Instruction: [SEP] i [SEP] Back to Search [SEP] < Prev [SEP] x [SEP] "
    )
    assert pages.detail_page("i", product, "Description").endswith("< Prev")


def test_options_on_the_last_page_are_safe_json():
    text = pages.done_page("B1", {"z": "18''x18''", "a": "<b> & \u00e9"}, 0.5)
    chosen = text.split("options [SEP] ")[1].split(" [SEP] ")[0]
    assert chosen == '{"a": "\\u003cb\\u003e \\u0026 \\u00e9", "z": "18\\u0027\\u0027x18\\u0027\\u0027"}'
    assert json.loads(chosen) == {"a": "<b> & \u00e9", "z": "18''x18''"}


@settings(max_examples=150)
@given(st.lists(st.one_of(st.text(max_size=30), st.integers(0, 400)), max_size=30), st.integers(0, 100))
def test_any_actions_leave_a_page(actions, index):
    """Numbers choose something clickable, texts are played as they are."""
    visit = session(index)
    for action in actions:
        if isinstance(action, int):
            offered = [*(f"click[{one}]" for one in visit.clickables), "search[lamp shade]", f"search[{action}]"]
            action = offered[action % len(offered)]
        visit.act(action)
        assert isinstance(visit.observation, str) and visit.observation
        assert len(set(visit.clickables)) == len(visit.clickables)
        if visit.score is not None:
            assert 0.0 <= visit.score.total <= 1.0


@pytest.mark.slow
def test_many_random_actions():
    rng = random.Random(0)
    visit = session()
    for step in range(100_000):
        noise = "".join(chr(rng.randrange(1, 0x3100)) for _ in range(rng.randrange(12)))
        offered = [f"click[{one}]" for one in visit.clickables] + [
            f"search[{noise}]",
            "search[rug]",
            noise,
            f"click[{noise}]",
        ]
        visit.act(rng.choice(offered))
        if visit.score is not None:
            visit = session(step % 50, rng.choice(["synthetic", "human"]) if step % 50 < 20 else "synthetic")
