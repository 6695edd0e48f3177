"""`sdar watch`: a running job in the terminal."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command `watch`; the parsed arguments carry its function as ``func(args) -> exit code``."""
    parser = subparsers.add_parser("watch", help="follow a running job: steps, time left, success, teacher, warnings")
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder")
    parser.add_argument("--once", action="store_true", help="print one picture and end")
    parser.add_argument("--every", type=float, default=2.0, metavar="S", help="seconds between looks (%(default)s)")
    parser.set_defaults(func=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Show it until the run is done; 1 when the folder is no run, 130 after Ctrl-C.

    Where the output is no terminal, a line per finished step is printed instead of a picture that changes.
    """
    from rich.console import Console

    from sdar_verl.errors import SdarError
    from sdar_verl.live import frame, look

    if not 0.1 <= args.every <= 3600:
        print("sdar watch: --every must lie between 0.1 and 3600 seconds", file=sys.stderr)
        return 1
    console = Console()
    try:
        if args.once:
            console.print(frame(look(args.run)))
        elif console.is_terminal:
            _live(console, args)
        else:
            _lines(args)
    except SdarError as err:
        print(f"sdar watch: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _live(console, args: argparse.Namespace) -> None:
    from rich.live import Live

    from sdar_verl.live import frame, look

    view = look(args.run)
    with Live(frame(view), console=console, auto_refresh=False) as live:
        while not view.finished:
            time.sleep(args.every)
            view = look(args.run)
            live.update(frame(view), refresh=True)


def _lines(args: argparse.Namespace) -> None:
    from sdar_verl.live import line, look

    said = None
    while True:
        view = look(args.run)
        if view.run.metrics and view.step != said:
            print(line(view), flush=True)
            said = view.step
        if view.finished:
            return
        time.sleep(args.every)
