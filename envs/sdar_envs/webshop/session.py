"""One customer's visit: WebShop's rules of clicking and searching, without its web server."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from sdar_envs.webshop import pages
from sdar_envs.webshop.goals import Goal, GoalBook
from sdar_envs.webshop.reward import Score
from sdar_envs.webshop.shop import Shop

_ACTION = re.compile(r"(.+)\[(.+)\]")
_SEARCH_BUTTON = pages.SEARCH.lower()
_DETAILS = {name.lower(): name for name in (*pages.DETAILS, pages.HIDDEN)}
_BACK, _NEXT, _PREVIOUS, _BUY = (text.lower() for text in (pages.BACK, pages.NEXT, pages.PREVIOUS, pages.BUY))


@dataclass
class Session:
    """A visit for one goal; `act` until `score` is set.

    Attributes:
        observation: the page's text.
        clickables: what can be clicked, lower-case, in page order.
        options: options chosen on the current item.
        score: of the purchase; None before it.
    """

    shop: Shop
    book: GoalBook
    goal: Goal
    observation: str = field(init=False)
    clickables: list[str] = field(init=False)
    options: dict[str, str] = field(init=False)
    score: Score | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._show_start()

    @property
    def has_search_bar(self) -> bool:
        return self._kind == "start"

    def act(self, action: str) -> None:
        """Play one action; what is not one changes nothing."""
        match = _ACTION.match(action)
        if match is None or self.score is not None:
            return
        name, argument = match[1], match[2].lower()
        if name == "search":
            self._show_results(argument, 1)
        elif name == "click" and argument in self.clickables and argument != _SEARCH_BUTTON:
            self._click(argument)

    def _click(self, target: str) -> None:
        if target == _BUY:
            self._buy()
        elif target == _BACK:
            self._show_start()
        elif target in (_NEXT, _PREVIOUS) and self._address() == "results":
            self._show_results(self._query, self._page + (1 if target == _NEXT else -1))
        elif target == _PREVIOUS and self._address() == "detail":
            self._show_item()
        elif target == _PREVIOUS and self._address() == "item":
            self._show_results(self._query, self._page)
        elif target in _DETAILS:
            self._show_detail(_DETAILS[target])
        else:
            if target in self._links:
                self._number = self._links[target]
            elif self._option_of.get(target) is not None:
                self.options[self._option_of[target]] = target
            self._show_item()

    def _address(self) -> str:
        """The kind of page, as the original reads it from the page's address.

        It looks for the kind's name anywhere in the address, which holds the query and the options as well.
        """
        if self._kind in ("item", "detail"):
            texts = [self._query, *self.options, *self.options.values()]
            if any("search_results" in text for text in texts):
                return "results"
            if any("item_page" in text for text in texts):
                return "item"
        return self._kind

    def _show_start(self) -> None:
        self._kind, self._query, self._page, self._number = "start", "", 0, -1
        self.options, self._links, self._option_of = {}, {}, {}
        self.observation = pages.start_page(self.goal.text)
        self.clickables = [_SEARCH_BUTTON]

    def _show_results(self, query: str, page: int) -> None:
        found = self.shop.search(query)
        numbers = found[(page - 1) * pages.PER_PAGE : page * pages.PER_PAGE]
        products = [self.shop.product(number) for number in numbers]
        self._kind, self._query, self._page, self._number = "results", query, page, -1
        self.options, self._option_of = {}, {}
        self._links = {one.asin.lower(): number for one, number in zip(products, numbers, strict=True)}
        self.observation = pages.results_page(self.goal.text, page, len(found), products)
        self.clickables = pages.results_clickables(page, products)

    def _show_item(self) -> None:
        product = self.shop.product(self._number)
        self._kind, self._links = "item", {}
        self._option_of = pages.item_clickables(product)
        self.observation = pages.item_page(self.goal.text, product)
        self.clickables = list(self._option_of)

    def _show_detail(self, name: str) -> None:
        self._kind, self._links, self._option_of = "detail", {}, {}
        self.observation = pages.detail_page(self.goal.text, self.shop.product(self._number), name)
        self.clickables = [_BACK, _PREVIOUS]

    def _buy(self) -> None:
        self._kind = "done"
        self.score = self.shop.score(self._number, self.options, self.goal, self.book)
        asin = self.shop.product(self._number).asin
        self.observation = pages.done_page(asin, self.options, self.score.total)
        self.clickables = []
