"""`sdar inspect`: the episodes of a run to look through, token by token."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sdar_verl.cli.arguments import positive


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command `inspect`; the parsed arguments carry its function as ``func(args) -> exit code``."""
    parser = subparsers.add_parser("inspect", help="write one HTML page of a run's episodes, token by token")
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder; it may still be written")
    parser.add_argument("--out", metavar="DIR", type=Path, help="where inspect.html goes; default: the run folder")
    parser.add_argument("--limit", type=positive, default=1000, help="most episodes in the page (%(default)s)")
    parser.set_defaults(func=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Write the page and print where it is; 1 with the reason on stderr when it cannot be made."""
    from sdar_verl.errors import SdarError
    from sdar_verl.report.inspect_page import build_page

    try:
        page = build_page(args.run, args.out or args.run, limit=args.limit)
    except SdarError as err:
        print(f"sdar inspect: {err}", file=sys.stderr)
        return 1
    print(f"page: {page.resolve()}")
    return 0
