#!/usr/bin/env python3
"""From nothing to a training run on AWS, one command for each part; docs/aws.md goes through them.

    python scripts/aws/launch.py --dry-run --region us-east-1 COMMAND ...

`--dry-run` prints every call and makes none. AWS's own settings (AWS_PROFILE, AWS_ENDPOINT_URL, ...) hold.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import calls as aws
import group
from calls import Calls, LaunchError

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # the checkout need not be installed where it is launched from
from sdar_verl.errors import ConfigError  # noqa: E402
from sdar_verl.redaction import check_secrets  # noqa: E402

EXTRAS = {"alfworld": "service", "webshop": "service,webshop", "search_qa": "service,search-qa"}
# What a service is told beside its data's place, as in envs/docker/compose.yaml; --set comes after it and wins.
ARGUMENTS = {
    "alfworld": [],
    "webshop": ["--set", "cache_dir=/tmp/webshop"],
    "search_qa": ["--step-timeout", "180", "--set", 'retriever={"engine": "tantivy", "index": "/data/index"}'],
}


def store(calls: Calls, args: argparse.Namespace) -> None:
    parameters = {"Project": args.project, "AlarmEmail": args.email, "MonthlyBudget": str(args.budget)}
    aws.deploy(calls, f"{args.project}-store", "store.yaml", parameters, tags(args))


def network(calls: Calls, args: argparse.Namespace) -> None:
    parameters = {"Project": args.project, "Zones": ",".join(args.zones)}
    aws.deploy(calls, f"{args.project}-network", "network.yaml", parameters, tags(args))


def image(calls: Calls, args: argparse.Namespace) -> None:
    """Build the environment's image with its data on top of it, and push it."""
    if not args.data.is_dir():
        raise LaunchError(f"--data {args.data} is no folder")
    answer = calls.call("ecr", "get_authorization_token")
    entry = answer["authorizationData"][0] if answer else {}
    registry = entry.get("proxyEndpoint", f"ACCOUNT.dkr.ecr.{calls.region}.amazonaws.com").removeprefix("https://")
    name = f"{args.project}-env-{args.environment}"
    files, extras = ROOT / "envs" / "docker", EXTRAS[args.environment]
    base = ["docker", "build", "--platform", "linux/amd64", "--build-arg", f"EXTRAS={extras}", "--tag", f"{name}:base"]
    calls.local([*base, "--file", str(files / "Dockerfile"), str(ROOT)])
    full = f"{registry}/{name}:{args.tag}"
    top = ["docker", "build", "--platform", "linux/amd64", "--build-arg", f"BASE={name}:base", "--tag", full]
    calls.local([*top, "--file", str(files / "data.Dockerfile"), str(args.data)])
    password = _password(entry)
    calls.local(["docker", "login", "--username", "AWS", "--password-stdin", registry], stdin=password)
    calls.local(["docker", "push", full])


def data(calls: Calls, args: argparse.Namespace) -> None:
    """Put an archive of an environment's data where training nodes find it."""
    if not args.archive.is_file():
        raise LaunchError(f"{args.archive} is no file")
    if not args.archive.name.endswith((".tar", ".tar.gz")):
        raise LaunchError(f"{args.archive.name} is neither .tar nor .tar.gz")
    key = f"data/{args.archive.name}"
    calls.call("s3", "upload_file", Filename=str(args.archive), Bucket=bucket(calls, args), Key=key)
    print(f"for training: --data-key {key}")


def environments(calls: Calls, args: argparse.Namespace) -> None:
    arguments = ["--set", "data_root=/data", *ARGUMENTS[args.environment]]
    arguments += [word for setting in args.set for word in ("--set", setting)]
    if any("|" in word for word in arguments):
        raise LaunchError("--set takes no value with a |")
    for name in service_names(args.environment, args.count):
        parameters = {
            "Project": args.project,
            "Name": name,
            "Environment": args.environment,
            "ImageTag": args.tag,
            "Arguments": "|".join(arguments),
            "Capacity": args.capacity,
        }
        aws.deploy(calls, f"{args.project}-env-{name}", "environment.yaml", parameters, tags(args))


def train(calls: Calls, args: argparse.Namespace) -> None:
    if not (ROOT / args.recipe).is_file():
        raise LaunchError(f"there is no recipe {args.recipe}")
    refuse_secrets(args.overrides)
    if args.reservation and args.market == "spot":
        raise LaunchError("--reservation goes with --market on-demand or capacity-block, not with spot")
    stack, nodes = f"{args.project}-run-{args.run}", f"{args.project}-{args.run}"
    there = aws.stands(calls, stack)
    if there and not args.replace:
        raise LaunchError(
            f"there is a run {args.run} already: `launch start {args.run}` goes on with it as it was launched; "
            "--replace ends its node and goes on with this commit and these settings; another run needs another --run"
        )
    archive, commit = release()
    digest = hashlib.sha256(archive).hexdigest()
    key = f"releases/{commit[:12]}-{digest[:12]}.tar.gz"
    calls.call(
        "s3", "put_object", {"Body": f"<{len(archive):,} bytes>"}, Bucket=bucket(calls, args), Key=key, Body=archive
    )
    endpoints = []
    if args.environments:
        names = service_names(args.recipe.split("/")[1], args.environments)
        endpoints = [f"ws://{name}.{args.project}.internal:8400" for name in names]
    parameters = {
        "Project": args.project,
        "Run": args.run,
        "InstanceType": args.instance,
        "Market": args.market,
        "CapacityReservation": args.reservation,
        "Subnets": ",".join(args.subnets),
        "ReleaseKey": key,
        "ReleaseSha256": digest,
        "Recipe": args.recipe,
        "Overrides": json.dumps(args.overrides),
        "DataKey": args.data_key,
        "Endpoints": json.dumps(endpoints),
        "WhenFailed": "keep" if args.keep_failed else "stop",
        "FlashAttn": args.flash_attn,
        "HangHours": f"{args.hang_hours:g}",
        "KnowledgeBaseArn": args.knowledge_base_arn,
        "KendraIndexArn": args.kendra_arn,
    }
    if args.image:
        parameters["Image"] = args.image
    replaced = args.replace and (there or calls.dry_run)
    if replaced:  # a stack's update leaves a running node as it is
        group.empty(calls, nodes)
    aws.deploy(calls, stack, "trainer.yaml", parameters, {**tags(args), "run": args.run})
    if replaced:
        group.resize(calls, nodes, 1)
    print("whether AWS has a node for it: launch status")


def size(calls: Calls, args: argparse.Namespace) -> None:
    """Stop a run's node, or start one that goes on."""
    group.resize(calls, f"{args.project}-{args.run}", args.size)


def status(calls: Calls, args: argparse.Namespace) -> None:
    """Stacks, the runs' nodes, and why AWS gives one none: a stack stands whether or not its node can be had."""
    for name in sorted(aws.stacks_of(calls, args.project)):
        stack = aws.find_stack(calls, name)
        print(f"{name}: {stack['StackStatus'] if stack else 'gone'}")
        if name.startswith(f"{args.project}-run-"):
            run = name.removeprefix(f"{args.project}-run-")
            for line in group.describe(calls, f"{args.project}-{run}"):
                print(f"  {line}")


def down(calls: Calls, args: argparse.Namespace) -> None:
    """Delete all stacks but the store, those first that need others."""
    there = aws.stacks_of(calls, args.project)
    kinds = ("run", "env", "network")
    if calls.dry_run:
        there = [f"{args.project}-run-<each>", f"{args.project}-env-<each>", f"{args.project}-network"]
    for kind in kinds:
        for name in sorted(there):
            if name == f"{args.project}-{kind}" or name.startswith(f"{args.project}-{kind}-"):
                aws.delete(calls, name)
    print(f"kept: stack {args.project}-store with checkpoints, skills and images; docs/aws.md says how to delete it")


def tags(args: argparse.Namespace) -> dict[str, str]:
    return {"project": args.project}


def refuse_secrets(overrides: Sequence[str]) -> None:
    """Raises `LaunchError` for an override with a secret: they are printed, and stand in the stack and on the node."""
    given = {}
    for line in overrides:
        name, _, value = line.lstrip("+~").partition("=")
        value = value.strip("'\"")
        given[name] = "" if re.fullmatch("null|none", value, re.IGNORECASE) else value
    try:
        check_secrets(given)
    except ConfigError as error:
        raise LaunchError(str(error)) from error


def service_names(environment: str, count: int) -> list[str]:
    """First parts of the services' addresses."""
    return [f"{environment.replace('_', '-')}-{number}" for number in range(1, count + 1)]


def bucket(calls: Calls, args: argparse.Namespace) -> str:
    """As scripts/aws/store.yaml names it."""
    account = calls.call("sts", "get_caller_identity").get("Account", "ACCOUNT")
    return f"{args.project}-{account}-{calls.region}"


def release() -> tuple[bytes, str]:
    """The committed state of this repository as ``.tar.gz``, the same bytes each time, and its commit.

    Raises:
        LaunchError: there are changes that are not committed, or this is no git repository.
    """
    if changed := _git("status", "--porcelain").decode().strip():
        raise LaunchError(f"commit first, so that the run's release has a name; changed:\n{changed}")
    commit = _git("rev-parse", "HEAD").decode().strip()
    return gzip.compress(_git("archive", "--format=tar", "HEAD"), mtime=0), commit


def _git(*words: str) -> bytes:
    try:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise LaunchError(f"a release is made from a git checkout of this project: {error}") from error


def _password(entry: dict[str, str]) -> str:
    import base64

    return base64.b64decode(entry.get("authorizationToken", "")).decode().partition(":")[2]


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="launch.py", description=__doc__.splitlines()[0])
    top.add_argument("--dry-run", action="store_true", help="print every call and make none")
    top.add_argument("--region", required=True)
    top.add_argument("--project", default="sdar", help="begins all names (sdar)")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(function, text: str, name: str | None = None) -> argparse.ArgumentParser:
        added = commands.add_parser(name or function.__name__, help=text)
        added.set_defaults(function=function)
        return added

    one = command(store, "bucket, skill table, image repositories, token, logs, budget alarm")
    one.add_argument("--email", required=True, help="who is told about costs")
    one.add_argument("--budget", type=float, default=1000, help="US dollars a month (1000)")
    one = command(network, "private network, ECS cluster; about 1.2 dollars a day")
    one.add_argument("--zones", nargs=2, required=True, metavar="ZONE", help="two with the GPUs you want")
    one = command(image, "build an environment's image with its data and push it (docker)")
    one.add_argument("environment", choices=sorted(EXTRAS))
    one.add_argument("--data", type=Path, required=True, help="folder that becomes /data")
    one.add_argument("--tag", required=True)
    one = command(data, "upload an archive of an environment's data for the training node")
    one.add_argument("archive", type=Path)
    one = command(environments, "environment services on Fargate")
    one.add_argument("environment", choices=sorted(EXTRAS))
    one.add_argument("--tag", required=True, help="of the image")
    one.add_argument("--count", type=int, default=1)
    one.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of the environment")
    one.add_argument("--capacity", choices=["FARGATE_SPOT", "FARGATE"], default="FARGATE_SPOT")
    one = command(train, "upload this commit and start a run on a GPU node")
    one.add_argument("--run", required=True, help="its name, new for each run")
    one.add_argument("--recipe", required=True, help="for example recipes/alfworld/p4de.sh")
    one.add_argument("--instance", required=True, help="for example p4de.24xlarge; see `sdar plan`")
    one.add_argument("--market", choices=["spot", "on-demand", "capacity-block"], default="spot")
    one.add_argument("--reservation", default="", help="id of a capacity block, or of a reservation on demand")
    one.add_argument("--subnets", nargs="*", default=[], help="instead of the network's")
    one.add_argument("--image", help="SSM parameter with the machine image (the newest of the family in trainer.yaml)")
    one.add_argument("--data-key", default="", help="as `data` printed it")
    one.add_argument("--environments", type=int, default=0, help="how many services to play at (0: on the node)")
    one.add_argument("--knowledge-base-arn", default="", help="that the retriever bedrock may ask")
    one.add_argument("--kendra-arn", default="", help="of the index that the retriever kendra may ask")
    one.add_argument(
        "--flash-attn", default="", metavar="WHEEL", help="releases/NAME.whl in the bucket, or https://..."
    )
    one.add_argument("--replace", action="store_true", help="end the node of a run that is there, and go on with this")
    one.add_argument("--keep-failed", action="store_true", help="leave the node there when the run fails")
    one.add_argument("--hang-hours", type=float, default=8, help="without a step: the run hangs (8; 0: it never does)")
    one.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="Hydra overrides (no secrets)")
    for name, number in (("stop", 0), ("start", 1)):
        one = command(size, f"{name} the node of a run", name)
        one.add_argument("run")
        one.set_defaults(size=number)
    command(status, "stacks of this project, and why a run has no node")
    command(down, "delete everything but the store")
    return top


def main(argv: Sequence[str] | None = None, wait: dict[str, int] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        args.function(Calls(args.region, args.dry_run, wait), args)
    except LaunchError as error:
        print(f"launch: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
