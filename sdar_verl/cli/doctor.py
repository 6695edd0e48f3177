"""`sdar doctor`: looks at this machine and this installation, starts nothing, and says what to do."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from sdar_verl.cli import checks
from sdar_verl.cli.checks import Check

_MARK = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command `doctor`; the parsed arguments carry its function as ``func(args) -> exit code``."""
    parser = subparsers.add_parser("doctor", help="check versions, platform, plugin, data, memory, disk and ports")
    parser.add_argument("--data", metavar="DIR", help="folder that holds the split folders with games")
    parser.add_argument("--splits", default="train,valid_seen", help="splits to look at, with commas (%(default)s)")
    parser.add_argument("--skills", default="alfworld", help="skill set: a shipped name or a folder (%(default)s)")
    parser.add_argument("--env", default="alfworld", help="environment family (%(default)s)")
    parser.add_argument("--runs", metavar="DIR", default=".", help="where runs will be written (%(default)s)")
    parser.add_argument("--start-ray", type=int, metavar="PORT", nargs="?", const=6379, help="check that PORT is free")
    parser.add_argument("--ray-address", metavar="HOST:PORT", help="check that the cluster to join answers")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(func=main)
    return parser


def run_checks(
    *,
    data: str | None = None,
    splits: Sequence[str] = ("train", "valid_seen"),
    skills: str = "alfworld",
    env: str = "alfworld",
    runs: str = ".",
    start_ray: int | None = None,
    ray_address: str | None = None,
) -> list[Check]:
    """All checks that the arguments ask for, in the order in which they are printed."""
    found = [checks.check_python(), *checks.check_packages(), *checks.check_platform(), checks.check_torchvision()]
    found += [checks.check_plugin(), checks.check_skills(skills, env)]
    if data is None:
        found.append(Check("data", "warn", "not checked", "give --data DIR to have the games checked"))
    else:
        found += checks.check_data(data, splits, env)
    found += [checks.check_memory(), checks.check_disk(runs), checks.check_shared_memory(), checks.check_open_files()]
    if start_ray is not None:
        found.append(checks.check_port(start_ray))
    if ray_address is not None:
        found.append(checks.check_address(ray_address))
    return found


def main(args: argparse.Namespace) -> int:
    """Print the findings; 1 if any failed, else 0."""
    found = run_checks(
        data=args.data,
        splits=[split for split in args.splits.split(",") if split],
        skills=args.skills,
        env=args.env,
        runs=args.runs,
        start_ray=args.start_ray,
        ray_address=args.ray_address,
    )
    failed = any(check.status == "fail" for check in found)
    if args.json:
        json.dump({"ok": not failed, "checks": [asdict(check) for check in found]}, sys.stdout, indent=1)
        print()
    else:
        print(render(found))
    return int(failed)


def render(found: Sequence[Check]) -> str:
    """The findings as text: one line each, advice below those that need it, counts at the end."""
    width = max(len(check.name) for check in found)
    lines = []
    for check in found:
        head, *rest = check.detail.splitlines() or [""]
        lines.append(f"{_MARK[check.status]}  {check.name:<{width}}  {head}")
        lines += [f"      {'':<{width}}  {line}" for line in rest]
        if check.advice:
            lines.append(f"      {'':<{width}}  -> {check.advice}")
    count = {status: sum(check.status == status for check in found) for status in _MARK}
    lines.append(f"{count['ok']} ok, {count['warn']} warnings, {count['fail']} failures")
    return "\n".join(lines)
