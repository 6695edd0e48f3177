"""`sdar skills push|pull|diff`: a folder and a shared table of skills."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from sdar_verl.evaluation.files import write_atomic
from sdar_verl.skills import DirectoryStore, SkillError, open_store
from sdar_verl.skills.aws import FORM, Address
from sdar_verl.skills.compare import differences, summary
from sdar_verl.skills.errors import SkillConflictError
from sdar_verl.skills.markdown import format_skill
from sdar_verl.skills.pins import file_name

Reporting = Callable[[Callable[[argparse.Namespace], None]], Callable[[argparse.Namespace], int]]


def add_commands(commands: argparse._SubParsersAction, reporting: Reporting, source_help: str) -> None:
    """Add ``push``, ``pull`` and ``diff``; each sets `func`."""
    push = commands.add_parser("push", help="publish a set in DynamoDB as its next release")
    push.add_argument("source", help=source_help)
    push.add_argument("address", help=FORM)
    push.add_argument("--expect", type=int, metavar="N", help="refuse unless the newest release is N (0: none)")
    push.add_argument("--create-table", action="store_true", help="create the table (on demand) if it is not there")
    push.set_defaults(func=reporting(push_skills))

    pull = commands.add_parser("pull", help="write a set from DynamoDB into a folder")
    pull.add_argument("address", help=FORM)
    pull.add_argument("folder", type=Path)
    pull.add_argument("--force", action="store_true", help="replace other skills that the folder holds")
    pull.set_defaults(func=reporting(pull_skills))

    diff = commands.add_parser("diff", help="what differs between two sets; status 1 if anything, 2 on errors")
    diff.add_argument("old", help=source_help)
    diff.add_argument("new", help=source_help)
    diff.set_defaults(func=diff_skills)


def push_skills(args: argparse.Namespace) -> None:
    """Publish a set and say what became new."""
    from sdar_verl.skills.dynamodb import SkillTable

    address = Address.parse(args.address)
    if address.release is not None:
        raise SkillError(f"{address}: a push makes the next release; leave release out, or use --expect")
    skills = open_store(args.source).all()
    table = SkillTable(address)
    if args.create_table and table.create():
        print(f"created the table {address.table}")
    newest = table.newest()
    number = newest.number if newest else 0
    if args.expect is not None and args.expect != number:
        raise SkillConflictError(f"{address} is at release {number}, not {args.expect}; look at its diff first")
    before = table.skills(newest.pins) if newest else []
    release = table.push(skills, expected=number)
    if release.number == number:
        print(f"{address}: nothing to push, release {number} holds these {len(skills)} skills")
    else:
        print(f"{address}: release {release.number} with {len(skills)} skills ({summary(before, skills)})")


def pull_skills(args: argparse.Namespace) -> None:
    """Write a release as Markdown files; refuses to lose other ones without ``--force``."""
    from sdar_verl.skills.dynamodb import DynamoStore

    store = DynamoStore(Address.parse(args.address))
    names = {file_name(skill): skill for skill in store.all()}
    there = sorted(p for p in args.folder.glob("*.md") if not p.name.startswith(".")) if args.folder.is_dir() else []
    if there and not args.force and DirectoryStore(args.folder).all() != store.all():
        raise SkillError(
            f"{args.folder} holds other skills; compare them (sdar skills diff {args.address} {args.folder}/), then "
            "choose another folder, or --force to replace them"
        )
    for name, skill in names.items():
        write_atomic(args.folder / name, format_skill(skill))
    for file in there:
        if file.name not in names:
            file.unlink()
    print(f"{args.folder}: {len(store)} skills of release {store.release.number}, hash {store.content_hash[:12]}")


def diff_skills(args: argparse.Namespace) -> int:
    """Print a unified diff; 0 if the sets are equal, 1 if not, 2 if one cannot be read."""
    try:
        old, new = open_store(args.old), open_store(args.new)
    except SkillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    lines = list(differences(old.all(), new.all(), (args.old, args.new)))
    print("\n".join([*lines, summary(old.all(), new.all())]))
    return 1 if lines else 0
