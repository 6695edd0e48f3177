"""The shop's pages as the agent reads them: visible texts joined by `` [SEP] ``, and what can be clicked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from sdar_envs.webshop.catalogue import Product

SEPARATOR = " [SEP] "
SEARCH, BACK, NEXT, PREVIOUS, BUY = "Search", "Back to Search", "Next >", "< Prev", "Buy Now"
DETAILS = ("Description", "Features", "Reviews")  # pages that an item page has buttons for
HIDDEN = "Attributes"  # a page without a button; only an option value of this name opens it
PER_PAGE = 10
_BLANKS = " \n\t\f\r"


def join(texts: Iterable[str]) -> str:
    """One page out of its text nodes, as WebShop gets them out of HTML.

    Empty nodes do not exist, blank ones with a line break are left out, other blank ones stay as empty parts.
    """
    return SEPARATOR.join(text.strip() for text in texts if text and ("\n" not in text or text.strip(_BLANKS)))


def start_page(instruction: str) -> str:
    return join(["WebShop", "Instruction:", instruction, SEARCH])


def results_page(instruction: str, page: int, total: int, products: Sequence[Product]) -> str:
    head = [*_head(instruction), f"Page {page} (Total results: {total})", *([PREVIOUS] if page > 1 else []), NEXT]
    return join([*head, *(text for one in products for text in (one.asin, one.name, one.price_tag))])


def item_page(instruction: str, product: Product) -> str:
    options = [text for name, values in product.options.items() for text in (name, *values)]
    facts = [product.name, f"Price: {product.price_tag}", "Rating: N.A."]
    return join([*_head(instruction), PREVIOUS, *options, *facts, *DETAILS, BUY])


def detail_page(instruction: str, product: Product, name: str) -> str:
    texts = {
        "Description": [product.description],
        "Features": [f" {bullet}" for bullet in product.bullets],
        "Reviews": [],  # the shop has none: its loader skips the reviews file
        HIDDEN: [
            *(f" {attribute}" for attribute in product.attributes),
            product.category,
            product.query,
            product.product_category,
        ],
    }[name]
    return join([*_head(instruction), PREVIOUS, *texts])


def done_page(asin: str, options: Mapping[str, str], reward: float) -> str:
    """The page after a purchase; most of its fields are never filled in."""
    chosen = json.dumps(options, sort_keys=True)
    for letter in "<>&'":
        chosen = chosen.replace(letter, f"\\u{ord(letter):04x}")
    bought = ["asin", asin, "options", chosen, "attrs", "None", "category", "None", "query", "None"]
    target = ["asin", "options", "attrs", "price upper", "instuction text", "category", "product category", "query"]
    texts = [
        "Thank you for shopping with us!",
        "Your code:",
        "None",
        "(Paste it in your MTurk interface.)",
        "Purchased",
    ]
    texts += [*bought, "product category", "None", "Target", *target, "Goal", "None", "Reward"]
    return join([*texts, "Your score (min 0.0, max 1.0)", str(reward), "Reward Details", "None"])


def results_clickables(page: int, products: Sequence[Product]) -> list[str]:
    buttons = [BACK, *([PREVIOUS] if page > 1 else []), NEXT]
    return list(dict.fromkeys(text.lower() for text in (*buttons, *(one.asin for one in products))))


def item_clickables(product: Product) -> dict[str, str | None]:
    """What can be clicked on an item page -> the option's name, or None for a button; of equal values the last wins."""
    found: dict[str, str | None] = {text.lower(): None for text in (BACK, PREVIOUS, *DETAILS, BUY)}
    for name, values in product.options.items():
        found.update((value, name) for value in values)
    return found


def _head(instruction: str) -> list[str]:
    return ["Instruction:", instruction, BACK]
