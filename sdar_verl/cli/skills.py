"""`sdar skills`: look at skill sets and check one's own before a run does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from sdar_envs import registry as environments
from sdar_envs.base import EnvError

from sdar_verl.cli import skill_sharing
from sdar_verl.skills import Skill, SkillError, open_store, shipped_sets
from sdar_verl.skills.aws import FORM, Address
from sdar_verl.skills.coverage import require_coverage


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add ``skills list|show|validate|push|pull|diff`` to a program's sub-commands.

    Each sets `func`, which takes the parsed arguments and returns the exit status: 0, or 1 with the reason on stderr
    (``diff`` as diff does: 1 for a difference, 2 for an error).
    """
    parser = subparsers.add_parser("skills", help="list, show, check, compare and share skill sets")
    commands = parser.add_subparsers(dest="skills_command", required=True, metavar="list|show|validate|push|pull|diff")
    source_help = f"a shipped set ({', '.join(shipped_sets())}) a folder's path with a slash, or {FORM}"

    listing = commands.add_parser("list", help="one line per skill; without a source, of every shipped set")
    listing.add_argument("source", nargs="?", help=source_help)
    listing.add_argument("--releases", action="store_true", help="of a set in DynamoDB: one line per release")
    listing.set_defaults(func=_reporting(list_skills))

    show = commands.add_parser("show", help="one skill with its text and hash")
    show.add_argument("id", help="the skill's id, for example alfworld/heat")
    show.add_argument("--source", help=f"{source_help}; default: look through the shipped sets")
    show.set_defaults(func=_reporting(show_skill))

    validate = commands.add_parser("validate", help="check every file and that every task type has a skill")
    validate.add_argument("source", help=source_help)
    validate.add_argument("--env", help="the environment the set is for; default: what its skills say")
    validate.add_argument("--allow-missing", action="store_true", help="accept task types without a skill")
    validate.set_defaults(func=_reporting(validate_skills))
    skill_sharing.add_commands(commands, _reporting, source_help)
    return parser


def list_skills(args: argparse.Namespace) -> None:
    """Print id, task type, version, length (characters) and hash of each skill; or the releases of a shared set."""
    if args.releases:
        return _list_releases(args.source)
    for source in [args.source] if args.source else shipped_sets():
        store = open_store(source)
        print(f"{source}: {len(store)} skills, hash {store.content_hash[:12]}")
        width = max(len(skill.id) for skill in store.all())
        for skill in store.all():
            kind = skill.task_type or "(general)"
            print(
                f"  {skill.id:<{width}}  {kind:<30}  v{skill.version}  {len(skill.text):>5}  {skill.content_hash[:12]}"
            )


def _list_releases(source: str | None) -> None:
    from sdar_verl.skills.dynamodb import SkillTable

    for release in SkillTable(Address.parse(source or "")).releases():
        print(f"{release.number:>4}  {release.created}  {len(release.pins):>4} skills")


def show_skill(args: argparse.Namespace) -> None:
    """Print one skill."""
    skill = _find(args.id, args.source)
    fields = {
        "id": skill.id,
        "env": skill.env,
        "task type": skill.task_type or "(general)",
        "version": skill.version,
        "provenance": skill.provenance,
        "hash": skill.content_hash,
    }
    for name, value in fields.items():
        print(f"{name:<11} {value}")
    print(f"\n{skill.text}")


def validate_skills(args: argparse.Namespace) -> None:
    """Check a set against its environment's task types; raises `SkillError` or `EnvError` if it does not hold."""
    env = args.env or _only_env(args.source)
    task_types = environments.get(env).task_types
    store = open_store(args.source, env=env, task_types=task_types)
    require_coverage(store, env, task_types, allow_missing=args.allow_missing)
    general = sum(skill.is_general for skill in store.all())
    covered = {skill.task_type for skill in store.all() if not skill.is_general}
    print(
        f"{args.source}: {len(store)} skills are valid for {env} ({general} general, "
        f"{len(store) - general} task-specific for {len(covered)} of {len(task_types)} task types), "
        f"hash {store.content_hash[:12]}"
    )


def _find(skill_id: str, source: str | None) -> Skill:
    if source:
        return open_store(source).get(skill_id)
    shipped = [skill for name in shipped_sets() for skill in open_store(name).all()]
    for skill in shipped:
        if skill.id == skill_id:
            return skill
    raise SkillError(f"no shipped skill {skill_id!r}; known: {', '.join(skill.id for skill in shipped)}")


def _only_env(source: str) -> str:
    envs = sorted({skill.env for skill in open_store(source).all()})
    if len(envs) > 1:
        raise SkillError(f"{source} holds skills for several environments ({', '.join(envs)}); say --env")
    return envs[0]


def _reporting(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        try:
            command(args)
        except (SkillError, EnvError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        return 0

    return run
