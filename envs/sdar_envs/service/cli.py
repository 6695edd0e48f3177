"""The console command ``sdar-env``: an environment as a service."""

from __future__ import annotations

import argparse
import json
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from sdar_envs import registry
from sdar_envs.base import EnvError
from sdar_envs.service.limits import Limits

_POOL = {
    "workers": (2, "worker processes"),
    "envs-per-worker": (8, "episodes that one of them plays at once"),
    "step-timeout": (60.0, "seconds one step may take in its worker"),
    "reset-timeout": (120.0, "seconds one reset may take in its worker"),
    "episode-timeout": (3600.0, "seconds one episode may take in all"),
    "start-timeout": (120.0, "seconds a worker may take to start"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 after an error that it explains on standard error."""
    args = _parser().parse_args(argv)
    try:
        return args.function(args)
    except EnvError as error:
        print(f"sdar-env: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sdar-env", description="Environments as network services.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve one environment until SIGTERM, then drain")
    serve.add_argument("env", help="name of a registered environment; see `sdar-env list`")
    serve.add_argument("--host", default="127.0.0.1", help="others than this machine's own need a token")
    serve.add_argument("--port", type=int, default=8400, help="0 takes a free one")
    serve.add_argument("--config", help="JSON file with the environment's settings")
    serve.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting; the value is JSON or else text"
    )
    serve.add_argument("--token-file", help="else the environment variable SDAR_ENV_TOKEN; neither: no token")
    serve.add_argument("--tls-certificate", help="PEM file")
    serve.add_argument("--tls-key", help="PEM file")
    serve.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    serve.add_argument(
        "--module", action="append", default=[], metavar="NAME=MODULE", help="make an environment of your own known"
    )
    for name, (default, text) in _POOL.items():
        serve.add_argument(f"--{name}", type=type(default), default=default, help=f"{text} ({default:g})")
    for field in fields(Limits):
        flag = "--" + field.name.replace("_", "-")
        serve.add_argument(
            flag, type=type(field.default), default=field.default, help=f"see Limits ({field.default:g})"
        )
    serve.set_defaults(function=_serve)
    for name, text in (("health", "is in order"), ("ready", "takes new sessions")):
        look = commands.add_parser(name, help=f"exit with 0 if the service at URL {text}")
        look.add_argument("url", nargs="?", default="http://127.0.0.1:8400")
        look.set_defaults(function=_look, path=f"/{name}")
    names = commands.add_parser("list", help="names of the registered environments")
    names.set_defaults(function=_list)
    return parser


def _serve(args: argparse.Namespace) -> int:
    try:
        import uvloop

        from sdar_envs.service import logs, server
        from sdar_envs.service.auth import check_bind, read_token
        from sdar_envs.service.core import EnvService
    except ModuleNotFoundError as error:
        raise EnvError(f"{error.name} is missing: pip install 'sdar-envs[service]'") from error
    for entry in args.module:
        name, _, module = entry.partition("=")
        registry.register(name, module)
    token = read_token(args.token_file)
    check_bind(args.host, token)
    if (args.tls_certificate is None) != (args.tls_key is None):
        raise EnvError("--tls-certificate and --tls-key go together")
    limits = Limits(**{field.name: getattr(args, field.name) for field in fields(Limits)})
    pool = {name: getattr(args, name) for name in (flag.replace("-", "_") for flag in _POOL)}
    logs.set_up(args.log_level)

    async def run() -> None:
        service = EnvService(args.env, read_config(args.config, args.set), limits, pool)
        await server.serve(service, args.host, args.port, token, args.tls_certificate, args.tls_key)

    uvloop.run(run())
    return 0


def read_config(path: str | None, assignments: Sequence[str]) -> dict[str, Any]:
    """The settings in a JSON file with ``key=value`` assignments on top; `EnvError` says what cannot be read."""
    config: Any = {}
    if path is not None:
        try:
            config = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise EnvError(f"the settings in {path} cannot be read: {error}") from error
        if not isinstance(config, dict):
            raise EnvError(f"{path} must hold one JSON object")
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise EnvError(f"--set {assignment!r} is not KEY=VALUE")
        try:
            config[key] = json.loads(value)
        except ValueError:
            config[key] = value
    return config


def _look(args: argparse.Namespace) -> int:
    address = args.url.rstrip("/") + args.path
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return 0 if answer.status == 200 else 1
    except (OSError, ValueError) as error:  # urllib's own errors are OSErrors
        print(f"sdar-env: {address}: {error}", file=sys.stderr)
        return 1


def _list(args: argparse.Namespace) -> int:
    print("\n".join(registry.names()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
