"""`sdar quickstart`: from nothing to a report that compares GRPO and SDAR, on a CPU."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command `quickstart`; the parsed arguments carry its function as ``func(args) -> exit code``."""
    parser = subparsers.add_parser("quickstart", help="train GRPO and SDAR from one tiny start model and compare them")
    parser.add_argument("--minutes", type=float, help="time budget after installation; default: 15")
    parser.add_argument("--model", default="tiny", help="tiny, or smollm2 for one real step of SmolLM2-135M-Instruct")
    parser.add_argument("--env", default="alfworld", help="alfworld, webshop or search_qa (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of games, panel, data order and sampling (%(default)s)")
    parser.add_argument(
        "--out", type=Path, help="folder of games, runs and report; default: runs/quickstart[-MODEL][-ENV]"
    )
    parser.set_defaults(func=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """Run it; 1 with the reason on stderr when it cannot go on, 130 when it was stopped."""
    from sdar_envs.base import EnvError

    from sdar_verl.errors import SdarError
    from sdar_verl.quickstart.run import quickstart
    from sdar_verl.stop_signals import terminate_like_ctrl_c

    named = [args.model] * (args.model != "tiny") + [args.env] * (args.env != "alfworld")
    out = args.out or Path("runs") / "-".join(["quickstart", *named])
    try:
        with terminate_like_ctrl_c():
            quickstart(
                out,
                model=args.model,
                env=args.env,
                minutes=args.minutes,
                seed=args.seed,
                say=partial(print, flush=True),
            )
    except (SdarError, EnvError) as error:
        print(f"sdar quickstart: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sdar quickstart: stopped; the same command goes on with the runs that are not finished", file=sys.stderr)
        return 130
    return 0
