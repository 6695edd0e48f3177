"""One service as a process: listens, drains on SIGTERM, ends."""

from __future__ import annotations

import asyncio
import logging
import socket
from types import FrameType

import uvicorn

from sdar_envs.base import EnvError
from sdar_envs.service.app import make_app
from sdar_envs.service.auth import check_bind
from sdar_envs.service.core import EnvService
from sdar_envs.service.logs import log

_PING = 20.0  # seconds between two pings of an idle connection, and until it counts as lost
_LAST_ANSWERS = 2  # seconds for connections to close after draining


class _Server(uvicorn.Server):
    """Drains at the first signal and ends at the second; the exit status is 0 either way."""

    def __init__(self, config: uvicorn.Config, service: EnvService) -> None:
        super().__init__(config)
        self._service, self._loop = service, asyncio.get_running_loop()
        self._draining: asyncio.Task | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._on_signal)

    def _on_signal(self) -> None:
        if self._draining is not None:
            log("stopping at once", logging.WARNING)
            self.should_exit = True
            return
        self._draining = self._loop.create_task(self._service.drain())
        self._draining.add_done_callback(self._drained)

    def _drained(self, task: asyncio.Task) -> None:
        self.should_exit = True
        if not task.cancelled():
            task.result()


async def serve(
    service: EnvService,
    host: str = "127.0.0.1",
    port: int = 8400,
    token: str | None = None,
    certificate: str | None = None,
    key: str | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return.

    Args:
        service: not started yet.
        host: an address of this machine; others than loopback need a token.
        port: 0 takes a free one, which the log tells.
        token: what clients must carry.
        certificate: a PEM file, for TLS without a proxy.
        key: its private key.

    Raises:
        EnvError: the address cannot be had, or the environment's workers cannot start.
    """
    check_bind(host, token)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise EnvError(f"{host}:{port} cannot be listened on: {error}") from error
    config = uvicorn.Config(
        make_app(service, token),
        lifespan="off",
        ws="websockets-sansio",
        log_config=None,
        access_log=False,
        server_header=False,
        ws_max_size=service.limits.max_message_bytes,
        ws_per_message_deflate=False,  # small messages; and nothing to inflate
        ws_ping_interval=_PING,
        ws_ping_timeout=_PING,
        timeout_graceful_shutdown=_LAST_ANSWERS,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    with listening:
        try:
            await service.start()
            log(
                "serving", env=service.name, host=host, port=listening.getsockname()[1], places=service.pool.places,
                token=token is not None, tls=certificate is not None,
            )  # fmt: skip
            await _Server(config, service).serve(sockets=[listening])
        finally:
            await service.close()
            log("stopped")
