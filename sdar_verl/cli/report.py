"""`sdar report`: one page out of one or several run folders."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sdar_verl.cli.arguments import positive


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command `report`; the parsed arguments carry its function as ``func(args) -> exit code``."""
    parser = subparsers.add_parser("report", help="write one HTML page that shows and compares runs")
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="run folder; the first is compared against")
    parser.add_argument("--out", required=True, metavar="DIR", type=Path, help="where report.html and plots/ go")
    parser.add_argument("--last-k", type=positive, default=3, metavar="K", help="evaluations averaged (%(default)s)")
    parser.add_argument("--title", default="SDAR run report", help="heading of the page")
    parser.set_defaults(func=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Write the page and print where it is; 1 with the reason on stderr when it cannot be made."""
    from sdar_verl.errors import SdarError
    from sdar_verl.report.quickstart import build_report

    try:
        page = build_report(args.runs, args.out, last_k=args.last_k, title=args.title)
    except SdarError as err:
        print(f"sdar report: {err}", file=sys.stderr)
        return 1
    print(f"report: {page.resolve()}")
    return 0
