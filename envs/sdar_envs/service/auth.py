"""Who may use a service: a shared token, and nobody from outside without one."""

from __future__ import annotations

import hmac
import ipaddress
import os
from pathlib import Path

from sdar_envs.base import EnvError
from sdar_envs.service.protocol import TOKEN_VARIABLE

_SHORTEST = 16


def read_token(path: str | Path | None = None, variable: str = TOKEN_VARIABLE) -> str | None:
    """The token in the file `path`, else in the environment variable; None where neither is given.

    Raises:
        EnvError: it cannot be read, is shorter than 16 characters, or cannot stand in a header.
    """
    if path is not None:
        try:
            token, source = Path(path).read_text(encoding="utf-8").strip(), f"the token file {path}"
        except (OSError, UnicodeDecodeError) as error:
            raise EnvError(f"the token file {path} cannot be read: {error}") from error
    elif variable in os.environ:
        token, source = os.environ[variable].strip(), f"the environment variable {variable}"
    else:
        return None
    if len(token) < _SHORTEST:
        raise EnvError(f"{source} holds fewer than {_SHORTEST} characters; make one with `openssl rand -hex 32`")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise EnvError(f"{source} must hold printable ASCII characters without spaces")
    return token


def is_allowed(header: str | None, token: str | None) -> bool:
    """Whether an ``Authorization`` header carries the token; the time taken does not tell how much of it was right."""
    if token is None:
        return True
    scheme, _, given = (header or "").partition(" ")
    return hmac.compare_digest(given.encode(), token.encode()) and scheme.lower() == "bearer"


def check_bind(host: str, token: str | None) -> None:
    """Refuse to listen where other machines reach us without a token."""
    if token is None and not _is_loopback(host):
        raise EnvError(
            f"host {host} can be reached from other machines, and no token is set: set {TOKEN_VARIABLE} or "
            "--token-file, or listen on 127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
