"""What customers ask for: WebShop's synthetic and human goals, in the original's random order.

Goals are not kept: a goal is made when it is asked for, from its product and a few numbers, so the millions of
synthetic goals of the full catalogue cost an array of integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from sdar_envs.base import EnvError
from sdar_envs.webshop.catalogue import Product
from sdar_envs.webshop.prepare import CATEGORIES, Prepared
from sdar_envs.webshop.records import map_array, write_folder

KINDS = ("synthetic", "human")
NO_CAP = 1_000_000.0  # dollars
_CAPS = [10.0 * step for step in range(1, 100)]


@dataclass(frozen=True)
class Goal:
    """One customer's wish.

    Attributes:
        number: the product's number in the catalogue.
        text: the instruction that the agent reads.
        price_cap: highest price in dollars.
        options: (name, value) pairs of a synthetic goal, plain values of a human one.
    """

    number: int
    asin: str
    text: str
    attributes: tuple[str, ...]
    price_cap: float
    options: tuple[tuple[str, str], ...] | tuple[str, ...]


_BIG = 50_000  # products; above, what a book is made of is kept in files
_ARRAYS = ("prices", "numbers", "caps", "starts", "order")


class GoalBook:
    """All goals of one kind with the prices they were made with.

    Args:
        prepared: the catalogue.
        product: a product by its number.
        cache: folder where the arrays of large catalogues are kept, for all processes to map.
        kind: ``synthetic`` or ``human``.
        seed: of product prices (where a product has a range) and price caps, drawn in the original's order.
        shuffle_seed: of the goals' order.

    Attributes:
        prices: each product's price in dollars (N).
    """

    def __init__(
        self,
        prepared: Prepared,
        product: Callable[[int], Product],
        cache: Path,
        kind: str,
        seed: int,
        shuffle_seed: int,
    ) -> None:
        if kind not in KINDS:
            raise EnvError(f"unknown kind of goals {kind!r}; known: {', '.join(KINDS)}")
        self._product, self._kind, self._categories = product, kind, prepared.categories
        if len(prepared.products) > _BIG:
            folder = cache / f"goals-{prepared.content[:32]}-{kind}-{seed}-{shuffle_seed}"
            arrays = _kept(prepared, folder, kind, seed, shuffle_seed)
        else:
            arrays = _draw(prepared, kind, seed, shuffle_seed)
        self.prices, self._numbers, self._caps, self._starts, self._order = (arrays[name] for name in _ARRAYS)

    def __len__(self) -> int:
        return len(self._order)

    def category(self, index: int) -> str:
        """The product category of a goal, cheaper than the goal."""
        return CATEGORIES[self._categories[self._numbers[self._unit(int(self._order[index]))]]]

    def __getitem__(self, index: int) -> Goal:
        if not 0 <= index < len(self):
            raise EnvError(f"there is no goal {index}; this catalogue has {len(self)} {self._kind} goals")
        place = int(self._order[index])
        unit = self._unit(place)
        number, cap = int(self._numbers[unit]), float(self._caps[unit])
        within = place - int(self._starts[unit])
        product = self._product(number)
        price = f", and price lower than {cap:.2f} dollars" if cap != NO_CAP else ""
        if self._kind == "human":
            first = int(np.searchsorted(self._numbers, number))
            usable = [one for one in product.human if one[1]]
            text, attributes, values = usable[unit - first]
            return Goal(number, product.asin, text.strip(".") + price, attributes, cap, values)
        pairs = _combination(product, within)
        wishes = ", and ".join(f"{name}: {value}" for name, value in pairs)
        text = f"{product.instruction}{' with ' + wishes if wishes else ''}{price}"
        return Goal(number, product.asin, text, product.instruction_attributes, cap, pairs)

    def _unit(self, place: int) -> int:
        return int(np.searchsorted(self._starts, place, "right")) - 1


def _combination(product: Product, number: int) -> tuple[tuple[str, str], ...]:
    """Combination `number` of a product's options, names in alphabetical order, the last one changing fastest."""
    pairs = []
    for name in sorted(product.options, reverse=True):
        values = product.options[name]
        number, place = divmod(number, len(values))
        pairs.append((name, values[place]))
    return tuple(reversed(pairs))


def _kept(prepared: Prepared, folder: Path, kind: str, seed: int, shuffle_seed: int) -> dict[str, np.ndarray]:
    """The arrays of `_draw` through a memory map; drawn and written at first use."""
    last = f"{_ARRAYS[-1]}.npy"

    def write(partial: Path) -> None:
        arrays = _draw(prepared, kind, seed, shuffle_seed)
        for name in _ARRAYS:
            np.save(partial / f"{name}.npy", arrays[name])

    if not (folder / last).is_file():
        write_folder(folder, last, write)
    return {name: map_array(folder / f"{name}.npy") for name in _ARRAYS}


def _draw(prepared: Prepared, kind: str, seed: int, shuffle_seed: int) -> dict[str, np.ndarray]:
    """Prices (N); for each product or human instruction with goals its number, price cap and first goal; the order of
    all goals. Everything random is drawn in the original's order."""
    rng = Random(seed)
    prices = _draw_prices(prepared.prices, rng)
    counts = prepared.combinations if kind == "synthetic" else prepared.humans
    # the original draws a product's cap before it looks at the options, of which one may have no values
    numbers = np.flatnonzero(prepared.instructed if kind == "synthetic" else counts).astype(np.int32)
    if kind == "synthetic":  # one cap for all goals of a product
        sizes = counts[numbers].astype(np.int64)
    else:
        numbers = np.repeat(numbers, counts[numbers])
        sizes = np.ones(len(numbers), np.int64)
    caps = _draw_caps(prices[numbers], rng)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    order = list(range(int(starts[-1])))
    Random(shuffle_seed).shuffle(order)
    return {"prices": prices, "numbers": numbers, "caps": caps, "starts": starts, "order": np.array(order, np.int32)}


def _draw_prices(prices: np.ndarray, rng: Random) -> np.ndarray:
    return np.array([low if math.isnan(high) else rng.uniform(low, high) for low, high in prices.tolist()], np.float64)


def _draw_caps(prices: np.ndarray, rng: Random) -> np.ndarray:
    """For each price the larger of two of the next four tens of dollars above it; none near 1,000 dollars and up."""
    caps = []
    for price in prices.tolist():
        first = max(0, math.floor(price / 10.0))
        above = [cap for cap in _CAPS[first : first + 5] if cap > price][:4]
        caps.append(max(rng.sample(above, 2)) if len(above) >= 2 else NO_CAP)
    return np.array(caps, np.float64)
