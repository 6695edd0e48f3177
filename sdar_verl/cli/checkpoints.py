"""`sdar checkpoints list|pull|verify|prune`: the checkpoints of a run, on this machine or in S3."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdar_verl.storage.remote import Entry, RemoteCheckpoints

_WHERE = "s3://BUCKET/PREFIX[?region=...&endpoint=...], or a run's folder"


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command `checkpoints`; the parsed arguments carry its function as ``func(args) -> exit code``."""
    parser = subparsers.add_parser("checkpoints", help="list, fetch, check and remove checkpoints")
    commands = parser.add_subparsers(required=True)

    show = commands.add_parser("list", help="what there is, oldest first")
    show.add_argument("where", metavar="WHERE", help=_WHERE)
    show.set_defaults(func=_reporting(list_them))

    pull = commands.add_parser("pull", help="bring a run from S3 into a folder; training there goes on from it")
    pull.add_argument("where", metavar="S3", help=_WHERE.partition(",")[0])
    pull.add_argument("folder", metavar="RUN", type=Path, help="a new or empty run folder")
    pull.add_argument("--step", type=int, help="this one (default: the newest sound one)")
    _speed(pull)
    pull.set_defaults(func=_reporting(pull_one))

    verify = commands.add_parser("verify", help="compare with the manifests; status 1 if something is wrong")
    verify.add_argument("where", metavar="WHERE", help=_WHERE)
    verify.add_argument("--step", type=int, help="this one alone")
    verify.add_argument("--deep", action="store_true", help="S3: fetch everything and compare hashes, not only sizes")
    verify.add_argument(
        "--mark", action="store_true", help="S3: starts pass over what is wrong, and no longer over what is right"
    )
    verify.set_defaults(func=_reporting(verify_them))

    prune = commands.add_parser("prune", help="remove old ones from S3; never the newest sound one, but with --all")
    prune.add_argument("where", metavar="S3", help=_WHERE.partition(",")[0])
    what = prune.add_mutually_exclusive_group(required=True)
    what.add_argument("--keep", type=int, metavar="N", help="newest sound checkpoints to keep")
    what.add_argument("--all", action="store_true", help="everything of this run; it cannot go on from S3 afterwards")
    prune.set_defaults(func=_reporting(prune_them))
    return parser


def list_them(args: argparse.Namespace) -> int:
    """Print a line for each checkpoint."""
    if not _is_remote(args.where):
        return _list_local(Path(args.where))
    remote = _remote(args.where)
    entries = remote.entries(damaged=True)
    print(f"{'step':>8}  {'start':>5}  {'MiB':>10}  {'files':>5}  saved (UTC)")
    for entry in entries:
        print(f"{entry.step:>8}  {entry.start:>5}  {_describe(remote, entry)}{'  damaged' * entry.damaged}")
    sound = [entry for entry in entries if not entry.damaged]
    print(f"a start goes on from step {sound[-1].step}" if sound else "nothing to go on from")
    return 0


def pull_one(args: argparse.Namespace) -> int:
    """Fetch a checkpoint and the run's files into a folder that holds no run."""
    from sdar_verl.storage.errors import DamageError, StorageError
    from sdar_verl.storage.restore import fetch

    if args.folder.exists() and any(args.folder.iterdir()):
        raise StorageError(f"{args.folder} is not empty; choose another folder")
    remote = _remote(args.where, args.parallel)
    entries = [entry for entry in _chosen(remote, args.step, args.where) if args.step is not None or not entry.damaged]
    settings = _settings(args)
    for entry in reversed(entries):
        try:
            folder = fetch(remote, entry, remote.read(entry), args.folder, args.folder / "checkpoints", settings, print)
        except DamageError as error:
            print(f"step {entry.step} is damaged: {error}", file=sys.stderr)
            continue
        print(f"{folder}: step {entry.step}; train with sdar.run_dir={args.folder} to go on")
        return 0
    raise StorageError(f"{args.where}: none of the checkpoints can be used")


def verify_them(args: argparse.Namespace) -> int:
    """Say for each checkpoint whether it is what its manifest says."""
    if not _is_remote(args.where):
        return _verify_local(Path(args.where), args.step)
    from sdar_verl.storage.errors import DamageError

    remote, bad = _remote(args.where), 0
    for entry in _chosen(remote, args.step, args.where):
        try:
            manifest = remote.read(entry)
            wrong = remote.missing(entry.name, manifest)
            if not wrong and args.deep:
                wrong = remote.differing(entry.name, manifest)
        except DamageError as error:
            wrong = [str(error)]
        bad += bool(wrong)
        _say(entry.step, wrong, "all hashes fit" if args.deep else "all files are there, with the right sizes")
        if args.mark and wrong and not entry.damaged:
            remote.mark_damaged(entry, wrong[0])
        elif args.mark and args.deep and not wrong and entry.damaged:
            remote.unmark(entry)
    return 1 if bad else 0


def prune_them(args: argparse.Namespace) -> int:
    """Remove checkpoints from S3."""
    remote = _remote(args.where)
    if args.all:
        gone = remote.entries(damaged=True)
        for entry in gone:
            remote.delete(entry)
        remote.sweep(before_start=10**6)  # of all starts: what uploads left that never came to their end
    else:
        gone = remote.prune(args.keep)
    print(f"removed {len(gone)}: {', '.join(f'step {entry.step}' for entry in gone) or 'nothing to remove'}")
    return 0


# --- parts ------------------------------------------------------------------------------------------------------


def _reporting(call):
    def run(args: argparse.Namespace) -> int:
        from sdar_verl.errors import SdarError

        try:
            return call(args)
        except SdarError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    return run


def _speed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parallel", type=int, default=8, help="parts in flight at once (%(default)s)")
    parser.add_argument("--max-bandwidth", type=float, metavar="MIB", help="most MiB/s")


def _is_remote(where: str) -> bool:
    return where.startswith("s3:")


def _remote(where: str, parallel: int = 8) -> RemoteCheckpoints:
    from sdar_verl.storage.place import Place
    from sdar_verl.storage.remote import RemoteCheckpoints

    return RemoteCheckpoints(Place.parse(where), parallel)


def _settings(args: argparse.Namespace):
    from sdar_verl.storage.settings import CheckpointSettings

    return CheckpointSettings(
        s3=args.where,
        keep=1,
        parallel=args.parallel,
        max_bandwidth=args.max_bandwidth,
        attempts=1,
        verify=True,
        shared_folder=False,
    )


def _chosen(remote: RemoteCheckpoints, step: int | None, where: str) -> list[Entry]:
    from sdar_verl.storage.errors import StorageError

    entries = remote.entries(damaged=True)
    found = [entry for entry in entries if step is None or entry.step == step]
    if not found:
        there = ", ".join(str(entry.step) for entry in entries) or "none"
        raise StorageError(f"{where} holds no checkpoint{'' if step is None else f' of step {step}'}; there: {there}")
    return found


def _describe(remote: RemoteCheckpoints, entry: Entry) -> str:
    from sdar_verl.storage.errors import DamageError

    try:
        manifest = remote.read(entry)
    except DamageError:
        return f"{'?':>10}  {'?':>5}  its manifest cannot be read"
    files = len(manifest.checkpoint) + len(manifest.records)
    return f"{manifest.size / (1 << 20):>10.1f}  {files:>5}  {manifest.saved}"


def _root(run: Path) -> Path:
    from sdar_verl.storage.errors import StorageError

    root = run / "checkpoints"
    if not root.is_dir():
        raise StorageError(f"{run} holds no checkpoints ({root} is no folder)")
    return root


def _list_local(run: Path) -> int:
    from sdar_verl.checkpoints import complete_steps
    from sdar_verl.storage.local import folder_of

    root = _root(run)
    steps = complete_steps(root)
    print(f"{'step':>8}  {'MiB':>10}  {'files':>5}")
    for step in steps:
        sizes = [path.stat().st_size for path in folder_of(root, step).rglob("*") if path.is_file()]
        print(f"{step:>8}  {sum(sizes) / (1 << 20):>10.1f}  {len(sizes):>5}")
    print(f"a start goes on from step {steps[-1]}" if steps else "nothing to go on from")
    return 0


def _verify_local(run: Path, step: int | None) -> int:
    from sdar_verl.checkpoints import complete_steps
    from sdar_verl.storage.errors import StorageError
    from sdar_verl.storage.local import damage, folder_of, read_local

    root = _root(run)
    steps = [found for found in complete_steps(root) if step is None or found == step]
    if not steps:
        raise StorageError(f"{root} holds no complete checkpoint{'' if step is None else f' of step {step}'}")
    bad = 0
    for found in steps:
        wrong = damage(folder_of(root, found), read=True)
        bad += bool(wrong)
        known = bool(wrong) or read_local(folder_of(root, found)) is not None
        _say(found, wrong, "all hashes fit" if known else "complete, but without a manifest to compare with")
    return 1 if bad else 0


def _say(step: int, wrong: list[str], right: str) -> None:
    print(f"step {step}: {right if not wrong else f'DAMAGED: {wrong[0]}'}")
    for line in wrong[1:]:
        print(f"    {line}")
