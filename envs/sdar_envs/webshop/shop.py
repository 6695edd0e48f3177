"""One opened catalogue with its search engine, nouns and goals; shared by all sessions of a process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from sdar_envs.webshop.catalogue import Product
from sdar_envs.webshop.goals import Goal, GoalBook
from sdar_envs.webshop.nouns import open_nouns
from sdar_envs.webshop.prepare import cache_folder, ensure_prepared, open_prepared, product_from
from sdar_envs.webshop.reward import Score, score

RESULTS = 50  # products that a search finds at most
_PRODUCTS_KEPT = 4096
_SEARCHES_KEPT = 2048


class Shop:
    """A WebShop catalogue ready to be visited.

    Args:
        data_root: folder with WebShop's files, or a prepared one.
        cache_dir: see `sdar_envs.webshop.prepare.ensure_prepared`.

    Raises:
        EnvError: no catalogue, a large one that is not prepared, or no noun table.
    """

    def __init__(self, data_root: str | Path, cache_dir: str | Path | None = None) -> None:
        self._cache = cache_folder(cache_dir)
        self.prepared = open_prepared(ensure_prepared(data_root, cache_dir))
        self._nouns = open_nouns(self.prepared, data_root, cache_dir)
        self.product = lru_cache(_PRODUCTS_KEPT)(self._load)
        self.search = lru_cache(_SEARCHES_KEPT)(self._search)
        self.goals = lru_cache(maxsize=None)(self._goals)

    def score(self, bought: int, options: dict[str, str], goal: Goal, book: GoalBook) -> Score:
        """What buying product number `bought` with `options` is worth for `goal` of `book`."""
        return score(
            self.product(bought),
            options,
            float(book.prices[bought]),
            goal,
            self.product(goal.number),
            self._nouns[bought],
            self._nouns[goal.number],
        )

    def _load(self, number: int) -> Product:
        return product_from(self.prepared.products[number])

    def _search(self, query: str) -> Sequence[int]:
        """Numbers of the best products for `query`, best first."""
        return tuple(self.prepared.index.search(query, RESULTS))

    def _goals(self, kind: str, seed: int, shuffle_seed: int) -> GoalBook:
        return GoalBook(self.prepared, self.product, self._cache, kind, seed, shuffle_seed)


open_shop = lru_cache(maxsize=4)(Shop)
