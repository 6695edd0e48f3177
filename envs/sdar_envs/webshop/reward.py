"""How well a purchase fits a goal, between 0 and 1, as WebShop scores it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from thefuzz import fuzz

from sdar_envs.webshop.catalogue import Product
from sdar_envs.webshop.colours import same_colour
from sdar_envs.webshop.goals import Goal

_SIMILAR = 85  # token-set ratio above which two texts are the same


@dataclass(frozen=True)
class Score:
    """Attributes:
    total: the reward.
    kind: what the product's type contributes as a factor: 1, 0.5, 0.1 or 0.
    attributes, options: how many of the goal's were met.
    price: whether the price is not above the cap.
    """

    total: float
    kind: float
    attributes: int
    options: int
    price: bool


def score(
    bought: Product,
    options: Mapping[str, str],
    price: float,
    goal: Goal,
    wanted: Product,
    bought_nouns: Sequence[str],
    wanted_nouns: Sequence[str],
) -> Score:
    """Score the purchase of `bought` with the chosen `options`.

    Args:
        wanted: the goal's product.
        bought_nouns, wanted_nouns: lower-case nouns of the products' names, with repetitions.
    """
    kind = _kind(bought, wanted, bought_nouns, wanted_nouns)
    attributes = sum(_has_attribute(bought, attribute) for attribute in goal.attributes)
    met = _options_met(options.values(), goal.options)
    fits = price <= goal.price_cap
    share = (attributes + met + fits) / (len(goal.attributes) + len(goal.options) + 1)
    return Score(share * kind, kind, attributes, met, bool(fits))


def _kind(bought: Product, wanted: Product, bought_nouns: Sequence[str], wanted_nouns: Sequence[str]) -> float:
    shared = len(set(bought_nouns) & set(wanted_nouns))
    title = shared / len(wanted_nouns) if wanted_nouns else 0.2
    if title == 0.0:
        return 0.0
    if title < 0.1:
        return 0.1
    matches = bought.query == wanted.query or len(bought.levels & wanted.levels) >= 2 or title > 0.2
    return 1.0 if matches else 0.5


def _has_attribute(product: Product, attribute: str) -> bool:
    return any(_similar(own, attribute) for own in product.attributes) or any(
        attribute in text for text in product.lowered
    )


def _options_met(chosen: Iterable[str], wanted: Sequence[tuple[str, str] | str]) -> int:
    have = [same_colour(value) for value in chosen]
    return sum(any(_similar(own, value) for own in have) for value in map(same_colour, wanted))


@lru_cache(maxsize=100_000)
def _similar(left: str, right: str) -> bool:
    return fuzz.token_set_ratio(left, right) > _SIMILAR
