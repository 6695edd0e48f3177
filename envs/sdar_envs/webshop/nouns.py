"""Nouns of product names, which the reward compares: ``python -m sdar_envs.webshop.nouns --help``.

WebShop tags names with spaCy's ``en_core_web_sm`` at every purchase. Here a table is computed once per catalogue, so
spaCy and its model are needed by this command alone (extra ``webshop-nouns``), on any machine.

The table is a JSON object ``{"names_hash": ..., "tagger": ..., "nouns": {product id: [noun, ...]}}`` with lower-case
nouns in the order of the name, repetitions included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from sdar_envs.base import EnvError
from sdar_envs.webshop.prepare import Prepared, cache_folder, ensure_prepared, names_hash, open_prepared
from sdar_envs.webshop.records import Records, write_folder, write_records

MODEL = "en_core_web_sm"
TABLE_FILE = "nouns.json"
_TAGS = ("NOUN", "PROPN")

Tagger = Callable[[Iterable[str]], Iterator[list[str]]]  # names -> their nouns, in the same order


def open_nouns(prepared: Prepared, data_root: str | Path, cache_dir: str | Path | None = None) -> Records:
    """The nouns of every product by its number.

    They are read from ``nouns.json`` in `data_root` and kept in the cache. Raises `EnvError` with what to do if there
    is no table, or one of another catalogue.
    """
    table = Path(data_root).expanduser() / TABLE_FILE
    if not table.is_file():
        raise EnvError(
            f"no noun table for the catalogue in {data_root}: run `python -m sdar_envs.webshop.nouns {data_root}` "
            f"once, where spaCy and {MODEL} are installed, and put its {TABLE_FILE} into that folder "
            "(docs/environments/webshop.md)"
        )
    with table.open("rb") as file:
        folder = cache_folder(cache_dir) / f"nouns-{prepared.names_hash[:16]}-{_digest(file)[:16]}"
    if not (folder / "nouns.npy").is_file():
        nouns = _read(table, prepared)
        write_folder(folder, "nouns.npy", lambda partial: write_records(partial, "nouns", nouns))
    return Records(folder, "nouns")


def write_table(pairs: Sequence[tuple[str, str]], tagger: Tagger, name: str, out: Path) -> None:
    """Tag every product's name and write the table to `out`.

    Args:
        pairs: id and name of each product of the catalogue, in its order.
        name: of the tagger, recorded in the file.
    """
    nouns = dict(zip((asin for asin, _ in pairs), tagger(name for _, name in pairs), strict=True))
    table = {"names_hash": names_hash(pairs), "tagger": name, "nouns": nouns}
    out.write_text(json.dumps(table) + "\n", encoding="utf-8")


def spacy_tagger(model: str = MODEL) -> tuple[Tagger, str]:
    """WebShop's own way to find nouns, with its name and version; raises `EnvError` if spaCy or `model` is missing."""
    try:
        import spacy

        nlp = spacy.load(model)
    except (ImportError, OSError) as error:
        raise EnvError(
            f"spaCy or its model {model} is missing ({error}): pip install 'sdar-envs[webshop-nouns]' and "
            f"python -m spacy download {MODEL}, or give another installed copy of the model with --model"
        ) from error

    def tag(names: Iterable[str]) -> Iterator[list[str]]:
        for doc in nlp.pipe(names, batch_size=64):
            yield [token.text.lower() for token in doc if token.pos_ in _TAGS]

    return tag, f"{nlp.meta['lang']}_{nlp.meta['name']} {nlp.meta['version']}, spaCy {spacy.__version__}"


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 22):
        digest.update(block)
    return digest.hexdigest()


def _read(table: Path, prepared: Prepared) -> list[list[str]]:
    try:
        content: dict[str, Any] = json.loads(table.read_text(encoding="utf-8"))
        found, nouns = content["names_hash"], content["nouns"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EnvError(f"{table} is not a noun table ({type(error).__name__}: {error})") from error
    if found != prepared.names_hash:
        raise EnvError(f"{table} belongs to catalogue {found}, this one is {prepared.names_hash}; make it again")
    try:
        return [nouns[prepared.products[number]["asin"]] for number in range(len(prepared.products))]
    except KeyError as error:
        raise EnvError(f"{table} lacks product {error}; make it again") from error


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sdar_envs.webshop.nouns", description=__doc__.split("\n")[0])
    parser.add_argument("data_root", help="folder with WebShop's files, or a prepared one")
    parser.add_argument("--out", default=None, help=f"file to write (default: {TABLE_FILE} in data_root)")
    parser.add_argument("--model", default=MODEL, help="the installed spaCy model (%(default)s)")
    parser.add_argument("--cache-dir", default=None, help="folder for prepared files")
    args = parser.parse_args(argv)
    out = Path(args.out or Path(args.data_root) / TABLE_FILE).expanduser()
    try:
        tagger, name = spacy_tagger(args.model)
        prepared = open_prepared(ensure_prepared(args.data_root, args.cache_dir))
        records = (prepared.products[number] for number in range(len(prepared.products)))
        write_table([(record["asin"], record["name"]) for record in records], tagger, name, out)
    except (EnvError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"nouns of {len(prepared.products)} names by {name}: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
