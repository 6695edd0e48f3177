"""A WebShop catalogue as large as you like, mixed from a small one: ``python benchmarks/grow_webshop.py --help``.

For measuring what size costs where the full catalogue is not at hand. Every product takes its name, description,
bullets, options, price and attributes from products of the small one, each from another one at random, so its texts
have the original's length and words; but no more different words than the small catalogue has, so that a word is in
more products than it would be, and searches have more to do. Its noun table holds all words of a name: good for
measuring, not for scores. Then::

    python -m sdar_envs.webshop.prepare <out> <prepared> && cp <out>/nouns.json <prepared>
    python benchmarks/env_webshop.py --data-root <prepared>
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sdar_envs.webshop.catalogue import find_files
from sdar_envs.webshop.nouns import TABLE_FILE, write_table

_TOLD = 100_000  # products between two lines of progress
_WITH_KIND = ("name", "category", "query", "product_category")  # fields that come from one product


def product_id(number: int) -> str:
    """``B0`` and `number` in base 36."""
    return f"B0{np.base_repr(number, 36):0>8}"


def mixed(items: Sequence[dict[str, Any]], count: int, seed: int) -> Iterator[tuple[dict[str, Any], str]]:
    """`count` products, and for each the id of the product whose attributes it has."""
    dice = random.Random(seed)
    for number in range(count):
        kind = dice.choice(items)
        product = {field: kind[field] if field in _WITH_KIND else dice.choice(items)[field] for field in kind}
        product |= {"asin": product_id(number), "images": [""]}
        yield product, kind["asin"]


def grow(source: Path, out: Path, count: int, seed: int) -> None:
    """Write the catalogue's files to `out`; raises `EnvError` if `source` holds none."""
    files = find_files(source)
    items = json.loads(files.items.read_text(encoding="utf-8"))
    attributes = json.loads(files.instructions.read_text(encoding="utf-8"))
    out.mkdir(parents=True, exist_ok=True)
    own: dict[str, Any] = {}
    names: list[tuple[str, str]] = []
    with (out / "items_shuffle.json").open("w", encoding="utf-8") as file:
        file.write("[")
        for number, (product, kind) in enumerate(mixed(items, count, seed)):
            file.write((",\n" if number else "") + json.dumps(product, ensure_ascii=False))
            own[product["asin"]] = attributes.get(kind, {"attributes": []})
            names.append((product["asin"], product["name"]))
            if (number + 1) % _TOLD == 0:
                print(f"{number + 1:,} of {count:,} products", flush=True)
        file.write("]\n")
    (out / "items_ins_v2.json").write_text(json.dumps(own, ensure_ascii=False), encoding="utf-8")
    write_table(names, lambda texts: (text.lower().split() for text in texts), "all words", out / TABLE_FILE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with a small catalogue, official or generated")
    parser.add_argument("out", type=Path, help="folder to write; files of an earlier call are replaced")
    parser.add_argument("-n", "--products", type=int, default=1_180_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    grow(args.source, args.out, args.products, args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
