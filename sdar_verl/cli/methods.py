"""`sdar methods`: what ships, and what each method is made of."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

COLUMNS = ("name", "student", "teacher", "weights", "compared", "weighed", "enters")
HEADINGS = ("method", "student sees", "teacher sees", "its weights", "compared by", "weighed by", "enters")


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command `methods`; the parsed arguments carry its function as ``func(args) -> exit code``."""
    parser = subparsers.add_parser("methods", help="list the methods with their parts")
    parser.add_argument("name", nargs="?", help="show this one's configuration file")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(func=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Print the table, or one method's file; 1 with the reason on stderr for an unknown name."""
    from sdar_verl import methods
    from sdar_verl.errors import ConfigError

    try:
        if args.name:
            found = methods.parts(args.name)
            print(json.dumps(asdict(found), ensure_ascii=False) if args.json else methods.source(args.name), end="")
            return 0
        every = [methods.parts(name) for name in methods.names()]
    except ConfigError as error:
        print(f"sdar methods: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps([asdict(found) for found in every], ensure_ascii=False, indent=1))
        return 0
    rows = [HEADINGS, *(tuple(getattr(found, column) for column in COLUMNS) for found in every)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    print("\n`sdar methods NAME` prints one's configuration; `sdar train method=NAME` trains with it.")
    return 0
