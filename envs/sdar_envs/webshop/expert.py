"""Scripted shoppers: one that sees no more than the agent does, and the purchase that a goal was made from."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sdar_envs.base import EnvError, EpisodeView, TaskRef
from sdar_envs.webshop import pages
from sdar_envs.webshop.pages import PER_PAGE, SEPARATOR
from sdar_envs.webshop.shop import Shop
from sdar_envs.webshop.tasks import read_task_id

_PRICE = re.compile(r",? and price lower than ([\d.]+) dollars$")
_LEAD = re.compile(r"^(?:Find me|I want|I need|Show me)\s+", re.IGNORECASE)
_PAIR = re.compile(r"(?:^|, and )([^:,]+): ")
_DOLLARS = re.compile(r"\$([\d.]+)")
_BACK, _PREVIOUS, _BUY = (f"click[{text.lower()}]" for text in (pages.BACK, pages.PREVIOUS, pages.BUY))
_BUTTONS = {text.lower() for text in (pages.BACK, pages.PREVIOUS, pages.NEXT, pages.BUY, *pages.DETAILS)}


@dataclass(frozen=True)
class Wish:
    """An instruction taken apart.

    Attributes:
        words: what to search for: the instruction without its opening words, options and price.
        options: (name, value) pairs that it asks for; empty where the instruction does not list them.
        price_cap: highest price in dollars; None where it names none.
    """

    words: str
    options: tuple[tuple[str, str], ...]
    price_cap: float | None


def read_wish(instruction: str) -> Wish:
    """Take an instruction apart; options are found where they are listed as in synthetic goals."""
    price = _PRICE.search(instruction)
    text = instruction[: price.start()] if price else instruction
    head, mark, tail = text, "", ""
    for place in (found.start() for found in re.finditer(r" with (?=[^:,]+: )", text)):
        head, mark, tail = text[:place], "with", text[place + len(" with ") :]
    pairs: list[tuple[str, str]] = []
    if mark:
        names = list(_PAIR.finditer(tail))
        ends = [*(match.start() for match in names[1:]), len(tail)]
        pairs = [(match[1].strip(), tail[match.end() : end]) for match, end in zip(names, ends, strict=True)]
    return Wish(_LEAD.sub("", head).strip(), tuple(pairs), float(price[1]) if price else None)


class Expert:
    """A fair shopper: it knows the instruction, the page and its own steps of this episode, as the agent does.

    Its plan: search for the instruction's words with its option values; open the listed products in order, those
    first that do not cost more than the cap; choose the wished options; buy when all of them were offered, else go back
    and look at the next one. After `patience` products, or when steps run out, it takes the one that offered most.

    Args:
        patience: products to open before settling.
        max_steps: steps an episode may take.
    """

    def __init__(self, patience: int = 4, max_steps: int = 15) -> None:
        if patience < 1 or max_steps < 1:
            raise EnvError(f"patience and max_steps must be at least 1, got {patience} and {max_steps}")
        self.patience, self.max_steps = patience, max_steps

    def act(self, view: EpisodeView) -> str:
        """The next action; it depends on the view alone, so states that another player reached can be labelled."""
        wish = read_wish(view.task_description)
        actions = list(view.admissible_actions)
        if _BUY in actions:
            return self._on_item(wish, view, actions)
        if _PREVIOUS in actions and not _listed(actions):
            return _PREVIOUS
        listed = _listed(actions)
        if listed:
            return self._on_results(wish, view, listed)
        if _BACK in actions:
            return _BACK
        return _search(" ".join([wish.words, *(value for _, value in wish.options)]))

    def _on_results(self, wish: Wish, view: EpisodeView, listed: list[str]) -> str:
        offers = _offers(view)
        prices = _prices(view.observation)
        fresh = [action for action in listed if action not in offers]
        if offers and (len(offers) >= self.patience or not fresh or self._left(view) <= 3 + len(wish.options)):
            best = max(offers, key=lambda action: offers[action])
            if best in listed:
                return best
        affordable = [
            action for action in fresh if wish.price_cap is None or prices.get(_target(action), 0.0) <= wish.price_cap
        ]
        return next(iter(affordable or fresh or listed))

    def _on_item(self, wish: Wish, view: EpisodeView, actions: list[str]) -> str:
        wanted = [f"click[{value}]" for _, value in wish.options] if wish.options else _mentioned(wish, actions)
        chosen = _since_opened(view)
        offered = [action for action in wanted if action in actions]
        offers = _offers(view)
        opened = [action for _, action in view.history if action in offers]
        settled = len(offers) >= self.patience or opened.count(opened[-1]) > 1 if opened else True
        missing = len(offered) < len(wanted)
        if missing and not settled and not chosen and self._left(view) > 3 + len(wish.options):
            return _PREVIOUS
        return next((action for action in offered if action not in chosen), _BUY)

    def _left(self, view: EpisodeView) -> int:
        return self.max_steps - len(view.history)


def reference_actions(shop: Shop, task: TaskRef) -> list[str]:
    """Search, open, choose and buy exactly the product and options that `task` was made from.

    This is the best known purchase, though not always worth 1.0. Raises `EnvError` if no search lists the product.
    """
    kind, seed, shuffle_seed, index = read_task_id(task.id)
    goal = shop.goals(kind, seed, shuffle_seed)[index]
    product = shop.product(goal.number)
    for query in (product.name, f"{product.name} {product.query}", goal.text):
        search = _search(query)
        found = shop.search(_target(search))
        if goal.number in found:
            turns = [f"click[{pages.NEXT.lower()}]"] * (found.index(goal.number) // PER_PAGE)
            values = [value if isinstance(value, str) else value[1] for value in goal.options]
            offered = [value for value in values if any(value in own for own in product.options.values())]
            options = [f"click[{value}]" for value in dict.fromkeys(offered)]
            return [search, *turns, f"click[{goal.asin.lower()}]", *options, _BUY]
    raise EnvError(f"{task.id}: no search finds product {goal.asin}, so there is no reference")


def _search(query: str) -> str:
    """The search action; brackets and line breaks would end it early."""
    return f"search[{re.sub(r'[^ -~]+|[][]', ' ', query.lower()).strip() or ' '}]"


def _listed(actions: list[str]) -> list[str]:
    """Products on a results page (pages with options have a buy button and are not asked)."""
    return [
        action for action in actions if action.startswith("click[") and _target(action) not in {*_BUTTONS, "search"}
    ]


def _target(action: str) -> str:
    return action.partition("[")[2].removesuffix("]")


def _offers(view: EpisodeView) -> dict[str, int]:
    """Opened products -> how many of the wished options their pages offered."""
    wish = read_wish(view.task_description)
    seen: dict[str, int] = {}
    pages_after = [observation for observation, _ in view.history[1:]] + [view.observation]
    for (observation, action), after in zip(view.history, pages_after, strict=True):
        if "(Total results: " in observation and _listed([action]) and f" [SEP] {pages.BUY}" in after:
            texts = after.split(SEPARATOR)
            seen[action] = sum(value.strip() in texts for _, value in wish.options)
    return seen


def _since_opened(view: EpisodeView) -> list[str]:
    """Actions since the current product was opened."""
    actions: list[str] = []
    for observation, action in reversed(view.history):
        if "(Total results: " in observation:
            break
        actions.append(action)
    return actions


def _mentioned(wish: Wish, actions: list[str]) -> list[str]:
    """Options whose value stands in the instruction's words."""
    words = f" {re.sub(r'[^a-z0-9.]+', ' ', wish.words.lower())} "
    targets = [_target(action) for action in actions if _target(action) not in _BUTTONS]
    return [f"click[{target}]" for target in targets if f" {re.sub(r'[^a-z0-9.]+', ' ', target).strip()} " in words]


def _prices(observation: str) -> dict[str, float]:
    """Listed products (lower-case ids) -> lowest price in dollars."""
    texts = observation.split(SEPARATOR)
    found: dict[str, float] = {}
    for place, text in enumerate(texts):
        price = _DOLLARS.match(text)
        if price and place >= 2:
            found[texts[place - 2].lower()] = float(price[1])
    return found
