"""`sdar lab`: make the tiny model that plays, and measure how well it plays with and without skills."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path

from sdar_verl.errors import ConfigError
from sdar_verl.lab import envs

_SAY = partial(print, flush=True)
_PLAIN = {"int": int, "float": float, "str": str}
_ENVS = "the environment: " + " or ".join(envs.names())


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add ``lab fit|eval`` to a program's sub-commands.

    Each sets `func`, which takes the parsed arguments and returns the exit status.
    """
    parser = subparsers.add_parser("lab", help="make and measure the tiny model of the quickstart")
    commands = parser.add_subparsers(dest="lab_command", required=True, metavar="fit|eval")

    fit = commands.add_parser("fit", help="fit the model on a scripted player's games (one core, about half an hour)")
    fit.add_argument("out", type=Path, help="model folder to make; kept as it is where its inputs have not changed")
    fit.add_argument("--env", default="alfworld", metavar="NAME", help=f"{_ENVS}; default: alfworld")
    fit.add_argument("--quick", action="store_true", help="a miniature fit of seconds by the same path, for checks")
    fit.add_argument("--force", action="store_true", help="make it again though it is there")
    fit.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change numbers of the configuration")
    fit.set_defaults(func=run_fit)

    evaluation = commands.add_parser("eval", help="play unseen games on unseen floor plans; rates with 95 %% intervals")
    evaluation.add_argument("model", type=Path, nargs="?", help="model folder; default: the shipped weights of --env")
    evaluation.add_argument("--env", metavar="NAME", help=f"{_ENVS}; default: the model's, alfworld without a folder")
    evaluation.add_argument("--games", type=int, default=240, help="games played under each condition")
    evaluation.add_argument("--seed", type=int, default=1, help="of games and sampling")
    evaluation.add_argument(
        "--temperature", type=float, help="0 takes the most likely token; default: the quickstart's"
    )
    evaluation.add_argument("--json", type=Path, help="also write the scores to this file")
    evaluation.set_defaults(func=run_eval)
    return parser


def run_fit(args: argparse.Namespace) -> int:
    """Make a model folder and say what came out."""
    from sdar_envs.base import EnvError

    from sdar_verl.lab.fit import fit
    from sdar_verl.lab.record import read_record

    try:
        config = envs.get(args.env).config
        config = _changed(config.quick() if args.quick else config, args.set)
        fit(config, args.out, say=_SAY, force=args.force)
    except (EnvError, ConfigError, FileExistsError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    record = read_record(args.out)
    assert record is not None
    _SAY(
        f"{args.out}: {record['parameters']:,} parameters, {record['vocabulary']} tokens, "
        f"{record['examples']} lessons, loss {record['curve'][0]:.2f} -> {record['last_loss']:.3f}, "
        f"{record['seconds']} s, inputs {record['fingerprint'][:12]}, weights {record['weights_sha256'][:12]}"
    )
    return 0


def run_eval(args: argparse.Namespace) -> int:
    """Play and print one line per condition and task type."""
    import torch
    from sdar_envs.base import EnvError

    from sdar_verl.lab import shipped_weights
    from sdar_verl.lab.evaluate import evaluate, load_policy
    from sdar_verl.lab.record import RECORD, config_of, read_record

    torch.set_num_threads(1)
    try:
        folder = args.model or shipped_weights(args.env or "alfworld")
        record = read_record(folder)
        if record is None:
            raise ConfigError(f"{folder} has no {RECORD}; make a model with: sdar lab fit {folder}")
        config = config_of(record)
        if args.env not in (None, config.env_name):
            raise ConfigError(f"{folder} was fitted for {config.env_name}, not for {args.env}")
        policy = load_policy(folder, temperature=args.temperature, seed=args.seed)
        scores = evaluate(policy, config, games=args.games, seed=args.seed, say=_SAY)
    except (EnvError, ConfigError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for condition, score in scores.items():
        _SAY(f"{condition:6s} {score.rate}, {score.steps:.1f} steps, {100 * score.admissible:.1f} % understood")
        for task_type, rate in score.by_type.items():
            _SAY(f"         {task_type:32s} {rate}")
    if args.json:
        args.json.write_text(json.dumps({name: asdict(score) for name, score in scores.items()}, indent=1) + "\n")
    return 0


def _changed(config, pairs: list[str]):
    """`config` with ``key=value`` pairs for its plain fields; raises `ValueError` naming the known ones."""
    known = {field.name: _PLAIN[str(field.type)] for field in fields(config) if str(field.type) in _PLAIN}
    changes = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key not in known:
            raise ValueError(f"unknown setting {key!r}; known: {', '.join(known)}")
        changes[key] = known[key](value)
    return replace(config, **changes)
