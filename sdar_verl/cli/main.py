"""The console command ``sdar``: finds the subcommand and imports only that one."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "train": "train with Hydra overrides, for example: sdar train method=grpo +lab=tiny",
    "quickstart": "GRPO and SDAR on a tiny model from one start, then a report; minutes on a CPU",
    "report": "one HTML page that shows and compares runs",
    "compare": "methods or settings times seeds: run them, resume them, and compare the runs on one page",
    "inspect": "one HTML page of the episodes of a run, token by token",
    "watch": "follow a running job in the terminal",
    "plan": "memory, time and cost of a run on AWS instances, before anything is rented",
    "doctor": "check versions, platform, plugin, data, memory, disk and ports",
    "methods": "list the methods with their parts",
    "checkpoints": "list, fetch, check and remove checkpoints, on this machine or in S3",
    "skills": "list, show, check, compare and share skill sets",
    "lab": "make and measure the tiny model of the quickstart",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns its exit status, 2 for an unknown one."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        print(f"sdar: there is no command {name!r}; known: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    if name == "train":
        return _train(rest)
    parser = argparse.ArgumentParser(prog="sdar")
    importlib.import_module(f"sdar_verl.cli.{name}").add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(arguments)
    return args.func(args)


def usage() -> str:
    """What ``sdar --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(["usage: sdar COMMAND [ARGUMENTS]", "", *lines, "", "`sdar COMMAND --help` says more."])


def _train(overrides: list[str]) -> int:
    """``python -m sdar_verl.train`` in this process: Hydra reads its overrides from ``sys.argv``."""
    from sdar_verl import train

    sys.argv = ["sdar train", *overrides]
    train.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
