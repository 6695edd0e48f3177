"""Makes WebShop catalogues: ``python -m sdar_envs.webshop.generate --help``.

Products, instructions and human-like instructions come in the official files' formats and names, with a noun table, so
a generated catalogue needs neither downloads nor spaCy. The same inputs give the same bytes on every machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from sdar_envs.base import EnvError
from sdar_envs.webshop.nouns import TABLE_FILE, write_table
from sdar_envs.webshop.words import BRANDS, FILLERS, ID_WORDS, KINDS, NOUNS, ROOTS, Kind

_VERSION = 1  # raise it when the same inputs give other catalogues
_MANIFEST = "generated.json"
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NO_PRICE, _PRICE_RANGE, _INSTRUCTED, _HUMAN = 0.05, 0.3, 0.8, 0.3  # shares of products


@dataclass(frozen=True)
class Knobs:
    """How hard a catalogue is.

    Attributes:
        categories: product categories to draw from.
        kinds: most kinds of product per category; fewer kinds mean more products that look alike.
        axes: fewest and most options of a product (colour, size, ...); a kind may know fewer.
        values: fewest and most values of an option.
        wishes: fewest and most attributes that a goal asks for.
        twins: share of products that repeat an earlier one with other options and another price.
        filler: sentences of every description that say nothing.
        id_words: product ids are B0, a word out of so many and a digit, so there are at most ten times as many
            products; 0 draws letters and digits, as real ones look. Small language models can copy words they know.

    Raises:
        EnvError: an unknown category, an empty range, or a share outside 0..1.
    """

    categories: tuple[str, ...] = tuple(KINDS)
    kinds: int = 3
    axes: tuple[int, int] = (1, 2)
    values: tuple[int, int] = (2, 5)
    wishes: tuple[int, int] = (1, 3)
    twins: float = 0.2
    filler: int = 2
    id_words: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.categories if name not in KINDS]
        if unknown or not self.categories:
            raise EnvError(f"unknown or no category in {self.categories}; known: {', '.join(KINDS)}")
        for name, low in (("axes", 0), ("values", 1), ("wishes", 1)):
            span = getattr(self, name)
            if not low <= span[0] <= span[1]:
                raise EnvError(f"{name} is {span}; it takes (fewest, most) with {low} <= fewest <= most")
        if not 0.0 <= self.twins < 1.0:
            raise EnvError(f"twins is {self.twins}; it is a share of 0 or more, below 1")
        if self.kinds < 1 or self.filler < 0:
            raise EnvError(f"kinds and filler are {self.kinds} and {self.filler}; they take at least 1 and 0")
        if not 0 <= self.id_words <= len(ID_WORDS):
            raise EnvError(f"id_words is {self.id_words}; it takes 0 to {len(ID_WORDS)}")


def generate_catalogue(
    out: str | Path, products: int = 300, seed: int = 0, knobs: Knobs | None = None, *, overwrite: bool = False
) -> Path:
    """Write a catalogue to the folder `out`, the later ``data_root``, and return it.

    One that lies there from the same inputs is kept.

    Args:
        products: how many.
        seed: any integer.
        knobs: difficulty; None is `Knobs()`.
        overwrite: replace a catalogue from other inputs.

    Raises:
        EnvError: bad inputs, or `out` holds something else.
    """
    knobs = knobs or Knobs()
    if products < 1:
        raise EnvError(f"a catalogue of {products} products is none; ask for 1 or more")
    if knobs.id_words and products > 10 * knobs.id_words:
        raise EnvError(f"id_words={knobs.id_words} gives {10 * knobs.id_words} ids, too few for {products} products")
    folder = Path(out).expanduser()
    inputs = {"version": _VERSION, "products": products, "seed": seed, "knobs": asdict(knobs)}
    inputs = json.loads(json.dumps(inputs))
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        if _made_from(folder) == inputs:
            return folder
        raise EnvError(f"{folder} holds other files; pass overwrite (--overwrite) to replace a catalogue there")
    rng = Random(f"webshop/{seed}")
    items: list[dict[str, Any]] = []
    synthetic: dict[str, Any] = {}
    human: dict[str, Any] = {}
    for item, traits, parts in _products(products, knobs, rng):
        asin = item["asin"]
        items.append(item)
        synthetic[asin] = _synthetic(item, traits, parts, knobs, rng)
        if rng.random() < _HUMAN:
            human[asin] = [_human(item, traits, parts, rng)]
    folder.mkdir(parents=True, exist_ok=True)
    files = {"items_shuffle_1000.json": items, "items_ins_v2_1000.json": synthetic, "items_human_ins.json": human}
    digest = hashlib.sha256()
    for name, content in files.items():
        text = json.dumps(content, ensure_ascii=False)
        digest.update(text.encode())
        (folder / name).write_text(text, encoding="utf-8")
    write_table([(item["asin"], item["name"]) for item in items], nouns, "word list", folder / TABLE_FILE)
    manifest = {**inputs, "hash": digest.hexdigest()}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return folder


def nouns(names: Iterable[str]) -> Iterator[list[str]]:
    """The nouns of generated names, by the generator's own word list."""
    for name in names:
        yield [word for word in name.lower().replace(",", " ").split() if word in NOUNS]


def _made_from(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found.pop("hash", None)
    return found


def _products(count: int, knobs: Knobs, rng: Random) -> Iterator[tuple[dict[str, Any], list[str], list[str]]]:
    """Products with their attributes, apart as said before and behind the noun."""
    made: list[tuple[str, Kind, str, str, list[str], list[str]]] = []
    asins: set[str] = set()
    while len(asins) < count:
        asin = _asin(knobs, rng)
        if asin in asins:
            continue
        asins.add(asin)
        if made and rng.random() < knobs.twins:
            category, kind, brand, material, traits, parts = rng.choice(made)
        else:
            category = rng.choice(knobs.categories)
            kind = rng.choice(KINDS[category][: knobs.kinds])
            brand, material = rng.choice(BRANDS), rng.choice(kind.materials)
            traits = rng.sample(kind.traits, rng.randint(1, len(kind.traits)))
            parts = [" ".join(part) for part in rng.sample(kind.parts, rng.randint(1, len(kind.parts)))]
        made.append((category, kind, brand, material, traits, parts))
        yield _item(asin, category, kind, brand, material, traits, parts, knobs, rng), traits, parts


def _asin(knobs: Knobs, rng: Random) -> str:
    if not knobs.id_words:
        return "B0" + "".join(rng.choices(_LETTERS, k=8))
    return f"B0{rng.choice(ID_WORDS[: knobs.id_words])}{rng.choice(_LETTERS[:10])}"


def _item(
    asin: str,
    category: str,
    kind: Kind,
    brand: str,
    material: str,
    traits: list[str],
    parts: list[str],
    knobs: Knobs,
    rng: Random,
) -> dict[str, Any]:
    many = min(rng.randint(*knobs.axes), len(kind.axes))
    options = {
        name: [
            {"value": value, "image": None}
            for value in rng.sample(values, min(rng.randint(*knobs.values), len(values)))
        ]
        for name, values in rng.sample(kind.axes, many)
    }
    said = [*traits, *parts]
    sentences = [f"This {material} {kind.noun} by {brand} is {rng.choice(traits)}."]
    sentences += [f"It comes {part}." for part in parts]
    sentences += rng.sample(FILLERS, min(knobs.filler, len(FILLERS)))
    return {
        "name": f"{brand} {material.capitalize()} {kind.noun.capitalize()}, {rng.choice(said).capitalize()}",
        "full_description": " ".join(sentences),
        "small_description": [one.capitalize() for one in said],
        "images": [""],
        "product_category": f"{ROOTS[category]} › {kind.path}",
        "customization_options": options or "",
        "asin": asin,
        "category": category,
        "query": kind.query,
        "page": 1,
        "pricing": _pricing(kind, rng),
    }


def _pricing(kind: Kind, rng: Random) -> str:
    low, high = sorted(round(rng.uniform(*kind.prices), 2) for _ in range(2))
    draw = rng.random()
    if draw < _NO_PRICE:
        return ""
    return f"${low} to ${high}" if draw < _NO_PRICE + _PRICE_RANGE and low < high else f"${low}"


def _synthetic(item: dict[str, Any], traits: list[str], parts: list[str], knobs: Knobs, rng: Random) -> dict[str, Any]:
    bare = [part.partition(" ")[2] for part in parts]
    entry: dict[str, Any] = {"attributes": [*traits, *bare]}
    if rng.random() >= _INSTRUCTED:
        return entry
    every = [*traits, *bare]
    chosen = rng.sample(every, min(rng.randint(*knobs.wishes), len(every)))
    before = [trait for trait in traits if trait in chosen]
    behind = [part for part, word in zip(parts, bare, strict=True) if word in chosen]
    words = ["Find me", ", ".join(before), item["query"], " ".join(behind)]
    entry["instruction"] = " ".join(word for word in words if word)
    entry["instruction_attributes"] = [*before, *(part.partition(" ")[2] for part in behind)]
    return entry


def _human(item: dict[str, Any], traits: list[str], parts: list[str], rng: Random) -> dict[str, Any]:
    trait = rng.choice(traits)
    options = item["customization_options"] or {}
    values = {name: rng.choice(contents)["value"] for name, contents in options.items()}
    noun = item["query"]
    text = (
        f"i would like {noun} that are {trait}" + "".join(f", {name} {value}" for name, value in values.items()) + "."
    )
    return {
        "asin": item["asin"],
        "instruction": text,
        "attributes": [*traits, *(part.partition(" ")[2] for part in parts)],
        "options": [f"{name}: {value}" for name, value in values.items()],
        "instruction_attributes": [trait],
        "instruction_options": list(values.values()),
    }


def _parser() -> argparse.ArgumentParser:
    standard = Knobs()
    parser = argparse.ArgumentParser(
        prog="python -m sdar_envs.webshop.generate", description="Make a WebShop catalogue."
    )
    parser.add_argument("out", help="folder to write, the later data_root")
    parser.add_argument("-n", "--products", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--categories", nargs="+", default=standard.categories, metavar="NAME", help=", ".join(KINDS))
    parser.add_argument("--kinds", type=int, default=standard.kinds, help="most kinds of product per category")
    span = {"nargs": 2, "type": int, "metavar": ("MIN", "MAX")}
    parser.add_argument("--axes", default=standard.axes, help="options of a product", **span)
    parser.add_argument("--values", default=standard.values, help="values of an option", **span)
    parser.add_argument("--wishes", default=standard.wishes, help="attributes of a goal", **span)
    parser.add_argument("--twins", type=float, default=standard.twins, help="share of repeated products")
    parser.add_argument("--filler", type=int, default=standard.filler, help="idle sentences of a description")
    parser.add_argument("--id-words", type=int, default=standard.id_words, help="words in product ids; 0: letters")
    parser.add_argument("--overwrite", action="store_true", help="replace a catalogue made from other inputs")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        knobs = Knobs(
            categories=tuple(args.categories),
            kinds=args.kinds,
            axes=tuple(args.axes),
            values=tuple(args.values),
            wishes=tuple(args.wishes),
            twins=args.twins,
            filler=args.filler,
            id_words=args.id_words,
        )
        folder = generate_catalogue(args.out, args.products, args.seed, knobs, overwrite=args.overwrite)
    except EnvError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.products} products in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
