"""`sdar compare`: run arms with several seeds, show what the runs say, and pack them to be shown elsewhere."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdar_verl.cli.arguments import positive

if TYPE_CHECKING:
    from sdar_verl.compare.sweep import Sweep


class _Intermixed(argparse.ArgumentParser):
    """Options may stand between the overrides, as in ``sdar train`` and everywhere else."""

    _inside = False

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[override]
        if self._inside:
            return super().parse_known_args(args, namespace)
        self._inside = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._inside = False


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command `compare`; the parsed arguments carry its function as ``func(args) -> exit code``."""
    parser = subparsers.add_parser("compare", help="methods or settings times seeds: run them, and compare the runs")
    actions = parser.add_subparsers(required=True, metavar="run|report|pack", parser_class=_Intermixed)
    _add_run(actions.add_parser("run", help="train every arm with every seed; a second call goes on"))
    _add_report(actions.add_parser("report", help="one page out of any number of runs, finished or not"))
    _add_pack(actions.add_parser("pack", help="one small file that the page can be made of anywhere"))
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="*",
        metavar="SWEEP.yaml | OVERRIDE",
        help="a comparison's file, and Hydra overrides for all runs; one with a choice (a=1,5) makes an arm of each",
    )
    parser.add_argument("--methods", metavar="A,B", help="an arm per method, as choice method=A,B")
    parser.add_argument("--arm", action="append", default=[], metavar="NAME=OVERRIDES", help="an arm; may be repeated")
    parser.add_argument(
        "--seeds", metavar="N | A,B", help="how many (5 is 0 to 4), or which; default: the file's, or 5"
    )
    parser.add_argument("--lab", action="store_true", help="the shipped tiny model on generated games, on a CPU")
    parser.add_argument("--baseline", metavar="ARM", help="arm that the others are compared with; default: the first")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the runs and the page; default: runs/compare"
    )
    parser.add_argument(
        "--jobs",
        type=positive,
        default=1,
        metavar="N",
        help="runs side by side on a CPU, each on its share of the cores (%(default)s)",
    )
    parser.add_argument("--stop-on-failure", action="store_true", help="begin no other run after one has failed")
    parser.add_argument("--dry-run", action="store_true", help="check every arm, print the runs, and start nothing")
    parser.set_defaults(func=run)


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folder of `sdar compare run`, file of `sdar compare pack`, run folder, or ARM=folder; in any number",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the page goes; default: the one folder named")
    parser.add_argument(
        "--file",
        type=Path,
        metavar="SWEEP.yaml",
        help="show what this comparison's file asks: its arms, up to its step",
    )
    parser.add_argument("--baseline", metavar="ARM", help="arm that the others are compared with; default: the first")
    parser.add_argument("--only", action="append", default=[], metavar="ARM", help="show this arm; may be repeated")
    parser.add_argument("--until", type=positive, metavar="STEP", help="look at no later step; default: at every one")
    parser.add_argument("--last-k", type=positive, default=3, metavar="K", help="evaluations averaged (%(default)s)")
    parser.add_argument("--price", type=float, metavar="P", help="of an hour of the machine, for the cost of the runs")
    parser.add_argument("--title", default="SDAR comparison", help="heading of the page")
    parser.set_defaults(func=report)


def _add_pack(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of `sdar compare run`")
    parser.add_argument("--out", type=Path, metavar="FILE.tar.gz", help="default: beside the folder, named after it")
    parser.set_defaults(func=pack)


def run(args: argparse.Namespace) -> int:
    """Run it; 1 when a run failed or the comparison makes no sense, 130 when it was stopped."""
    from sdar_envs.base import EnvError

    from sdar_verl.compare.composed import compose_arms, overrides
    from sdar_verl.compare.page import build_comparison
    from sdar_verl.compare.runner import failures, run_sweep
    from sdar_verl.errors import SdarError
    from sdar_verl.stop_signals import terminate_like_ctrl_c

    say = partial(print, flush=True)
    try:
        sweep, file = sweep_of(args), sweep_file(args)
        out = args.out or Path("runs") / (file.stem if file else "compare")
        out = out.expanduser().absolute()  # the shell leaves the ~ of --out=~/x as it is
        if args.dry_run:
            plans = compose_arms(sweep, out)
            for arm, seed in sweep.runs:
                say(f"{arm.name}, seed {seed}, {plans[arm.name].steps} steps: sdar train", end=" ")
                say(shlex.join(overrides(sweep, out, arm, seed)))
            return 0
        with terminate_like_ctrl_c():
            found = run_sweep(sweep, out, jobs=args.jobs, say=say, stop_on_failure=args.stop_on_failure)
            names = [arm.name for arm in sweep.arms]
            if any(own.done and own.arm in names for own in found.runs.values()):
                folder = out / file.stem if file else out  # other files may share the runs
                page = build_comparison(
                    [str(out)], folder, baseline=sweep.baseline, only=names, until=sweep.until, about=sweep.about
                )
                say(f"page: {page}")
    except (SdarError, EnvError) as error:
        print(f"sdar compare: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sdar compare: stopped; the same command goes on with the runs that are not finished", file=sys.stderr)
        return 130
    failed = failures(found, names)
    for line in failed:
        print(f"sdar compare: failed: {line}", file=sys.stderr)
    return 1 if failed else 0


def report(args: argparse.Namespace) -> int:
    """Write the page and print where it is; 1 with the reason on stderr when it cannot be made."""
    from sdar_verl.compare.arms import split_target
    from sdar_verl.compare.pack import unpacked
    from sdar_verl.compare.page import build_comparison
    from sdar_verl.compare.sweep import from_file
    from sdar_verl.errors import SdarError

    if args.out is None and (len(args.runs) > 1 or split_target(args.runs[0])[0].is_file()):
        print("sdar compare: say where the page of several folders, or of a file, goes: --out DIR", file=sys.stderr)
        return 1
    try:
        file = from_file(args.file) if args.file else None
        with unpacked(args.runs) as targets:
            page = build_comparison(
                targets,
                (args.out or split_target(args.runs[0])[0]).expanduser().absolute(),
                baseline=args.baseline or _baseline(file, args.only),
                only=args.only or ([arm.name for arm in file.arms] if file else []),
                until=args.until or (file.until if file else None),
                last_k=args.last_k,
                price=args.price,
                title=args.title,
                about=file.about if file else "",
            )
    except SdarError as error:
        print(f"sdar compare: {error}", file=sys.stderr)
        return 1
    print(f"page: {page.resolve()}")
    return 0


def _baseline(file: Sweep | None, only: Sequence[str]) -> str | None:
    """The arm that a comparison's file compares with, if it is among those asked for."""
    return file.baseline if file is not None and (not only or file.baseline in only) else None


def pack(args: argparse.Namespace) -> int:
    """Write the archive and print where it is; 1 with the reason on stderr when there is nothing to pack."""
    from sdar_verl.compare.pack import SUFFIX, pack
    from sdar_verl.errors import SdarError

    folder = args.folder.expanduser().absolute()
    archive = (args.out or folder.with_name(folder.name + SUFFIX)).expanduser().absolute()
    try:
        size = pack(folder, archive)
    except SdarError as error:
        print(f"sdar compare: {error}", file=sys.stderr)
        return 1
    print(f"archive: {archive} ({size / 1024:.0f} KiB)")
    return 0


def sweep_file(args: argparse.Namespace) -> Path | None:
    """The comparison's file among the arguments; raises `ConfigError` where there are two."""
    from sdar_verl.errors import ConfigError

    files = [Path(what) for what in args.what if what.endswith((".yaml", ".yml")) and "=" not in what]
    if len(files) > 1:
        raise ConfigError(f"one comparison file at a time, got {', '.join(map(str, files))}")
    return files[0] if files else None


def sweep_of(args: argparse.Namespace):
    """The comparison that the arguments describe: a file's, or arms of their own, with their changes on top.

    Raises:
        ConfigError: they contradict each other or make no comparison.
    """
    from dataclasses import replace

    from sdar_verl.compare.sweep import Arm, Lab, Sweep, expand, from_file, parse, parse_seeds
    from sdar_verl.errors import ConfigError

    file = sweep_file(args)
    own = [what for what in args.what if file is None or Path(what) != file]
    choices = [line for line, parsed in zip(own, parse(own), strict=True) if parsed.is_sweep_override()]
    common = tuple(line for line in own if line not in choices)
    seeds = parse_seeds(args.seeds) if args.seeds is not None else None
    if file is not None:
        if args.methods or args.arm or choices:
            raise ConfigError(f"{file} names the arms already; add --methods, --arm and choices to it instead")
        sweep = from_file(file)
        changes: dict[str, Any] = {"common": sweep.common + common, "seeds": seeds or sweep.seeds}
        changes |= {"lab": sweep.lab or Lab()} if args.lab else {}
        return replace(sweep, **changes, baseline=args.baseline or sweep.baseline)
    arms = [Arm(name, (f"method={name}",)) for name in args.methods.split(",")] if args.methods else []
    for line in args.arm:
        name, sign, lines = line.partition("=")
        if not sign or not name:
            raise ConfigError(f"--arm {line!r} must be a name, an equal sign, and overrides separated by spaces")
        arms += expand(name, shlex.split(lines))
    if arms:
        arms = [found for arm in arms for found in expand(arm.name, [*arm.overrides, *choices])]
    elif choices:
        arms = expand("", choices)
    else:
        arms = [Arm("run", ())] if own else []
    return Sweep(
        tuple(arms),
        seeds or parse_seeds(5),
        common=common,
        lab=Lab() if args.lab else None,
        baseline=args.baseline or "",
    )
