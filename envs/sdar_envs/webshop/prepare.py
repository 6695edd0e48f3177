"""Turns a catalogue into files that all processes of a host share: ``python -m sdar_envs.webshop.prepare --help``.

Small catalogues are prepared by themselves at first use; for large ones run the command once and point
``env.webshop.data_root`` at the folder it made.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdar_envs.base import EnvError
from sdar_envs.webshop.catalogue import CatalogueFiles, Product, find_files, read_products
from sdar_envs.webshop.index import SearchIndex
from sdar_envs.webshop.index_build import build
from sdar_envs.webshop.records import Records, map_array, write_folder, write_records

VERSION = 5  # raise it when the same catalogue gives other files
MANIFEST = "prepared.json"
AUTOMATIC = 64 << 20  # bytes; larger catalogues are prepared by command only
_NO_CATEGORY = 255  # of a product that nobody asks for
CATEGORIES = ("beauty", "electronics", "fashion", "garden", "grocery")


@dataclass(frozen=True)
class Prepared:
    """An opened folder of prepared files.

    Attributes:
        products: the catalogue's entries, in file order.
        index: search over them.
        prices: lowest and highest price in dollars (N, 2); the second is NaN where there is one price.
        instructed: whether a product has an instruction, and so draws a price cap (N).
        combinations: synthetic goals of each product (N); none where an option has no values.
        humans: usable human instructions of each product (N).
        categories: each product's place in `CATEGORIES` (N).
        names_hash: hash over ids and names; noun tables belong to it.
        content: hash over the whole catalogue.
    """

    folder: Path
    products: Records
    index: SearchIndex
    prices: np.ndarray
    instructed: np.ndarray
    combinations: np.ndarray
    humans: np.ndarray
    categories: np.ndarray
    names_hash: str
    content: str


def open_prepared(folder: Path) -> Prepared:
    """Map the files in `folder`; raises `EnvError` if they are missing, damaged or of another version."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        found = manifest["version"]
        arrays = {name: map_array(folder / f"{name}.npy") for name in _COLUMNS}
        hashes = {"names_hash": manifest["names_hash"], "content": manifest["content"]}
    except (OSError, ValueError, KeyError) as error:
        raise EnvError(f"{folder} holds no prepared catalogue ({error}); prepare it again") from error
    if found != VERSION:
        raise EnvError(f"{folder} was prepared by version {found}, this is {VERSION}; prepare it again")
    return Prepared(folder, Records(folder, "products"), SearchIndex.open(folder), **arrays, **hashes)


def ensure_prepared(data_root: str | Path, cache_dir: str | Path | None = None) -> Path:
    """The folder of prepared files for `data_root`, made in the cache if need be.

    Args:
        data_root: a prepared folder, or a folder with WebShop's files.
        cache_dir: where to keep prepared files; None is ``$SDAR_WEBSHOP_CACHE`` or the user's cache folder.

    Raises:
        EnvError: no catalogue there, or a large one that has not been prepared.
    """
    root = Path(data_root).expanduser()
    if (root / MANIFEST).is_file():
        return root
    files = find_files(root)
    total = sum(path.stat().st_size for path in files.present())
    if total > AUTOMATIC:
        raise EnvError(
            f"the catalogue in {root} has {total / 2**20:.0f} MiB; prepare it once with "
            f"`python -m sdar_envs.webshop.prepare {root} OUT` and set env.webshop.data_root to OUT"
        )
    folder = cache_folder(cache_dir) / f"catalogue-{_content_hash(files)}"
    if not (folder / MANIFEST).is_file():
        prepare(files, folder)
    return folder


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """The cache: `cache_dir`, ``$SDAR_WEBSHOP_CACHE``, or ``sdar_webshop`` in the user's cache folder."""
    chosen = cache_dir or os.environ.get("SDAR_WEBSHOP_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdar_webshop"


def prepare(files: CatalogueFiles, folder: Path, limit: int | None = None) -> None:
    """Write the prepared files of a catalogue to `folder`; several processes may do so at once."""
    write_folder(folder, MANIFEST, lambda partial: _write(files, partial, limit))


_COLUMNS = {
    "prices": np.float64,
    "instructed": np.bool_,
    "combinations": np.int64,
    "humans": np.int32,
    "categories": np.uint8,
}


def _write(files: CatalogueFiles, folder: Path, limit: int | None) -> None:
    pairs: list[tuple[str, str]] = []
    content = hashlib.sha256()
    columns: list[list] = [[] for _ in _COLUMNS]

    def pass_through() -> Iterator[Product]:
        for product in read_products(files, limit):
            pairs.append((product.asin, product.name))
            for column, value in zip(columns, _row(product), strict=True):
                column.append(value)
            yield product

    with (folder / "text.tmp").open("w+", encoding="utf-8", errors="surrogatepass") as texts:

        def values() -> Iterator[dict[str, Any]]:
            for product in pass_through():
                texts.write(json.dumps([product.asin, product.search_text()]) + "\n")
                record = asdict(product)
                content.update(json.dumps(record).encode())
                yield record

        count = write_records(folder, "products", values())
        if not count:
            raise EnvError(f"{files.items} holds no products")
        texts.seek(0)
        build((tuple(json.loads(line)) for line in texts), folder)
    (folder / "text.tmp").unlink()
    for (name, kind), column in zip(_COLUMNS.items(), columns, strict=True):
        np.save(folder / f"{name}.npy", np.array(column, kind))
    manifest = {"version": VERSION, "products": count, "names_hash": names_hash(pairs), "content": content.hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def names_hash(pairs: Iterable[tuple[str, str]]) -> str:
    """What a noun table belongs to: a hash over ids and names of a catalogue, in its order."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(json.dumps(pair).encode())
    return digest.hexdigest()[:32]


def _row(product: Product) -> tuple[Any, ...]:
    if product.instruction is not None and not product.instruction_attributes:
        raise EnvError(f"product {product.asin} has an instruction without attributes, so no goal can be made of it")
    lowest, highest = (*product.prices, math.nan)[:2]
    instructed = product.instruction is not None
    count = math.prod(map(len, product.options.values())) if instructed else 0
    humans = sum(1 for _, attributes, _ in product.human if attributes)
    if product.category in CATEGORIES:
        return (lowest, highest), instructed, count, humans, CATEGORIES.index(product.category)
    if count or humans:
        known = ", ".join(CATEGORIES)
        raise EnvError(f"product {product.asin} has goals in the unknown category {product.category!r}; known: {known}")
    return (lowest, highest), instructed, count, humans, _NO_CATEGORY


def product_from(record: dict[str, Any]) -> Product:
    """A product from its prepared record."""
    record["options"] = {name: tuple(values) for name, values in record["options"].items()}
    record["human"] = tuple((text, tuple(attributes), tuple(options)) for text, attributes, options in record["human"])
    for name in ("bullets", "prices", "attributes", "instruction_attributes"):
        record[name] = tuple(record[name])
    return Product(**record)


def _content_hash(files: CatalogueFiles) -> str:
    digest = hashlib.sha256(f"{VERSION}".encode())
    for path in files.present():
        digest.update(path.stat().st_size.to_bytes(8, "big") + path.read_bytes())
    return digest.hexdigest()[:32]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sdar_envs.webshop.prepare", description=__doc__.split("\n")[0])
    parser.add_argument("data_root", help="folder with WebShop's files")
    parser.add_argument("out", help="folder to make; set env.webshop.data_root to it")
    parser.add_argument("--products", type=int, default=None, help="use only the file's first so many entries")
    args = parser.parse_args(argv)
    try:
        out = Path(args.out).expanduser()
        if out.exists():
            raise EnvError(f"{out} exists; choose another folder or remove it")
        prepare(find_files(args.data_root), out, args.products)
    except EnvError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    prepared = open_prepared(out)
    print(f"{len(prepared.products)} products in {out}; noun tables for it: {prepared.names_hash}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
