"""Reads WebShop's own files: products, synthetic instructions and human instructions.

Names of the official files: ``items_shuffle_1000.json`` with ``items_ins_v2_1000.json`` (1,000 products), and
``items_shuffle.json`` with ``items_ins_v2.json`` (1.18 million). Human instructions: ``items_human_ins.json``.
The product file is read product by product, so its size is no matter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property
from pathlib import Path
from typing import Any

from sdar_envs.base import EnvError

NO_PRICE = 100.0  # dollars; what a product without a price costs
_ITEMS = ("items_shuffle_1000.json", "items_shuffle.json")
_INSTRUCTIONS = ("items_ins_v2_1000.json", "items_ins_v2.json")
_HUMAN = ("items_human_ins.json", "items_human_ins_1000.json")
_LONGEST_ASIN = 10
_CHUNK = 1 << 22  # characters


@dataclass(frozen=True)
class Product:
    """One product as the shop shows it.

    Attributes:
        prices: lowest and highest price in dollars, or one number.
        options: option name -> values, all lower-case, in the shop's order.
        attributes: what the reward compares goals with.
        instruction: the synthetic instruction without options and price; None where there is none.
        human: human instructions as (text, attributes, options).
    """

    asin: str
    name: str
    description: str
    bullets: tuple[str, ...]
    category: str
    query: str
    product_category: str
    prices: tuple[float, ...]
    price_tag: str
    options: Mapping[str, tuple[str, ...]]
    attributes: tuple[str, ...]
    instruction: str | None
    instruction_attributes: tuple[str, ...]
    human: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]

    @cached_property
    def lowered(self) -> tuple[str, str, str]:
        """Title, joined bullets and description in lower case: where the reward looks for attributes."""
        return self.name.lower(), " ".join(self.bullets).lower(), self.description.lower()

    @cached_property
    def levels(self) -> frozenset[str]:
        """The category path's parts."""
        return frozenset(part.strip() for part in self.product_category.split("›"))

    def search_text(self) -> str:
        """What the search engine indexes: title, description, first bullet and options, lower-case."""
        options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in self.options.items())
        return " ".join([self.name, self.description, *self.bullets[:1], options]).lower()


@dataclass(frozen=True)
class CatalogueFiles:
    """Paths of one catalogue's files; `human` is None where there is no such file."""

    items: Path
    instructions: Path
    human: Path | None

    def present(self) -> list[Path]:
        return [self.items, self.instructions, *([self.human] if self.human else [])]


def find_files(data_root: str | Path) -> CatalogueFiles:
    """The official files in a folder; raises `EnvError` where they are missing or there are two catalogues."""
    root = Path(data_root).expanduser()
    found = {names: [root / name for name in names if (root / name).is_file()] for names in (_ITEMS, _INSTRUCTIONS)}
    for names, paths in found.items():
        if len(paths) != 1:
            what = "both" if paths else "neither"
            raise EnvError(
                f"{root} holds {what} of {' and '.join(names)}; env.webshop.data_root must name a folder with one "
                "WebShop catalogue (docs/environments/webshop.md says where to get it or how to generate one)"
            )
    human = [root / name for name in _HUMAN if (root / name).is_file()]
    return CatalogueFiles(found[_ITEMS][0], found[_INSTRUCTIONS][0], human[0] if human else None)


def read_products(files: CatalogueFiles, limit: int | None = None) -> Iterator[Product]:
    """All products in file order; those WebShop skips (id ``nan``, too long or seen before) are skipped.

    Args:
        limit: read only so many entries of the file, skipped ones included; None reads all.

    Raises:
        EnvError: a file is not what WebShop's own loader could read.
    """
    synthetic = _read_mapping(files.instructions)
    human = _read_mapping(files.human) if files.human else {}
    seen: set[str] = set()
    for number, entry in enumerate(_entries(files.items)):
        if limit is not None and number >= limit:
            return
        try:
            asin = entry["asin"]
            if asin == "nan" or len(asin) > _LONGEST_ASIN or asin in seen:
                continue
            seen.add(asin)
            yield _product(entry, synthetic.get(asin, {}), human.get(asin, []))
        except (KeyError, TypeError, AttributeError, ValueError, InvalidOperation) as error:
            raise EnvError(
                f"{files.items.name}: entry {number} is not a WebShop product ({type(error).__name__}: {error})"
            ) from error


def _product(entry: Mapping[str, Any], synthetic: Mapping[str, Any], human: list[Mapping[str, Any]]) -> Product:
    prices, tag = parse_price(entry.get("pricing"))
    bullets = entry["small_description"]
    return Product(
        asin=entry["asin"],
        name=_text(entry["name"]),
        description=_text(entry["full_description"]),
        bullets=tuple(map(_text, bullets)) if isinstance(bullets, list) else (_text(bullets),),
        category=_text(entry["category"]),
        query=entry["query"].lower().strip(),
        product_category=_text(entry["product_category"]),
        prices=prices,
        price_tag=tag,
        options=_options(entry["customization_options"]),
        attributes=tuple(synthetic.get("attributes", ("DUMMY_ATTR",))),
        instruction=synthetic.get("instruction"),
        instruction_attributes=tuple(synthetic.get("instruction_attributes") or ()),
        human=tuple(
            (_text(one["instruction"]), tuple(one["instruction_attributes"]), tuple(one["instruction_options"]))
            for one in human
        ),
    )


def parse_price(pricing: str | None) -> tuple[tuple[float, ...], str]:
    """``"$1,299.00 to $1,500"`` -> ``((1299.0, 1500.0), "$1299.0 to $1500.0")``; no price is 100 dollars."""
    if not pricing:
        return (NO_PRICE,), f"${NO_PRICE}"
    prices = [float(Decimal(re.sub(r"[^\d.]", "", part))) for part in pricing.split("$")[1:]]
    if not prices:
        raise ValueError(f"the price {pricing!r} has no dollar sign")
    return tuple(prices[:2]), " to ".join(f"${price}" for price in prices[:2])


def _options(raw: Any) -> dict[str, tuple[str, ...]]:
    options: dict[str, tuple[str, ...]] = {}
    for name, contents in (raw or {}).items():
        if contents is not None:
            options[name.lower()] = tuple(one["value"].strip().replace("/", " | ").lower() for one in contents)
    return options


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EnvError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(data, dict):
        raise EnvError(f"{path} is not a JSON object with one entry per product")
    return data


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON array, one at a time."""
    decode = json.JSONDecoder().raw_decode
    try:
        with path.open(encoding="utf-8") as file:
            text, place = file.read(_CHUNK).lstrip(), 1
            if not text.startswith("["):
                raise EnvError(f"{path} is not a JSON array of products")
            while True:
                place = _skip(text, place)
                if text[place : place + 1] == "]":
                    return
                try:
                    entry, place = decode(text, place)
                except ValueError as error:
                    more = file.read(max(_CHUNK, len(text) - place))
                    if not more:
                        raise EnvError(f"{path} ends in the middle or is not JSON: {error}") from error
                    text, place = text[place:] + more, 0
                    continue
                yield entry
    except (OSError, UnicodeDecodeError) as error:
        raise EnvError(f"{path} cannot be read: {error}") from error


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n,":
        place += 1
    return place
