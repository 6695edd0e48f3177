"""Scores of purchases worked out by hand, quirks included."""

from dataclasses import replace

import pytest
from sdar_envs.webshop.catalogue import Product
from sdar_envs.webshop.colours import COLOURS, same_colour
from sdar_envs.webshop.goals import Goal
from sdar_envs.webshop.reward import score

LAMP = Product(
    asin="B1",
    name="Alvera Brass Lamp",
    description="Made for the HOME OFFICE.",
    bullets=("Easy assemble", "Dimmable"),
    category="garden",
    query="table lamps",
    product_category="Home › Lighting › Lamps",
    prices=(20.0,),
    price_tag="$20.0",
    options={"color": ("navy blue", "dark red")},
    attributes=("easy assemble", "space saving"),
    instruction=None,
    instruction_attributes=(),
    human=(),
)
GOAL = Goal(0, "B1", "...", ("easy assemble", "home office"), 30.0, (("color", "navy blue"),))
NOUNS = ["alvera", "brass", "lamp"]


def bought(product=LAMP, options=None, price=20.0, goal=GOAL, wanted=LAMP, nouns=NOUNS, wanted_nouns=NOUNS):
    chosen = {"color": "navy blue"} if options is None else options
    return score(product, chosen, price, goal, wanted, nouns, wanted_nouns)


def test_attributes_are_found_in_the_list_or_in_any_text():
    result = bought(options={})
    assert (result.attributes, result.options, result.price, result.kind) == (2, 0, True, 1.0)
    assert result.total == 3 / 4
    lost = replace(LAMP, description="", attributes=())
    assert bought(lost, options={}).attributes == 1  # "easy assemble" still stands in the bullets
    assert bought(replace(LAMP, attributes=("assemble easy",), bullets=("",)), options={}).attributes == 2


def test_price_counts_up_to_the_cap():
    assert bought(price=30.0).price
    assert not bought(price=30.01).price


def test_a_synthetic_option_is_compared_as_a_pair():
    """``('color', 'navy blue')``: no colour word stands alone, so the pair's text meets ``navy`` by its word."""
    assert bought().options == 1
    assert bought(options={"color": "dark red"}).options == 0
    exact = replace(GOAL, options=(("color", "navy"),))
    assert bought(options={"color": "navy blue"}, goal=exact).options == 0  # blue comes first in the list of colours
    assert bought(options={"color": "navy"}, goal=exact).options == 1
    assert bought(options={}, goal=exact).options == 0


def test_a_human_option_is_a_plain_value():
    goal = replace(GOAL, options=("navy",))
    assert bought(options={"color": "navy"}, goal=goal).options == 1
    assert bought(options={"color": "dark navy"}, goal=goal).options == 0  # dark comes before navy
    assert bought(options={"size": "x"}, goal=replace(GOAL, options=())).total == 1.0


def test_colours():
    assert same_colour("navy blue") == "blue"
    assert same_colour("striped") == "striped"
    assert same_colour(("color", "navy blue")) == "('color', 'navy blue')"
    assert same_colour(("color", "navy")) == "navy"
    assert len(COLOURS) == len(set(COLOURS)) == 102


@pytest.mark.parametrize(
    ("nouns", "wanted_nouns", "query", "path", "kind"),
    [
        (["lamp"], ["lamp"], "table lamps", "Home", 1.0),
        (["rug"], ["lamp"], "table lamps", "Home › Lighting › Lamps", 0.0),  # no shared noun beats everything
        (["a"], ["a", *"bcdefghijkl"], "table lamps", "Home › Lighting", 0.1),  # 1 of 12
        (["a"], ["a", *"bcdefg"], "rugs", "Garden", 0.5),  # 1 of 7, nothing else in common
        (["a"], ["a", *"bcdefg"], "rugs", "Home › Lighting", 1.0),  # two levels of the path
        (["a"], ["a", *"bcdefg"], "table lamps", "Garden", 1.0),  # the same query
        (["a"], ["a", "a", "a", "a"], "rugs", "Garden", 1.0),  # 1 of 4 tokens, repetitions counted: 0.25
        (["a"], ["a"] * 5, "rugs", "Garden", 0.5),  # exactly 0.2 is not above 0.2
        (["rug"], [], "rugs", "Garden", 0.5),  # a name without nouns counts as 0.2
    ],
)
def test_kind_of_product(nouns, wanted_nouns, query, path, kind):
    other = replace(LAMP, query=query, product_category=path)
    result = bought(other, nouns=nouns, wanted_nouns=wanted_nouns)
    assert result.kind == kind
    assert result.total == kind * 1.0
