"""Running the application until a signal ends it."""

from __future__ import annotations

import signal
import socket

import uvicorn

from sdar_envs.base import EnvError
from sdar_envs.search_qa.contract import ServerLimits
from sdar_envs.search_qa.retrievers.base import Retriever
from sdar_envs.search_qa.server.app import Service


def serve(
    retriever: Retriever,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    topk: int = 3,
    limits: ServerLimits | None = None,
    grace: float = 20.0,
) -> None:
    """Serve until SIGTERM or SIGINT: then no new connection is taken and running requests may finish.

    Prints ``listening on http://<host>:<port>/retrieve`` once requests are accepted.

    Args:
        port: 0 chooses a free one.
        grace: seconds that running requests may take after the signal.

    Raises:
        EnvError: the address cannot be bound.
    """
    service = Service(retriever, limits, topk)
    listener = _bind(host, port)
    config = uvicorn.Config(
        service.app(),
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=max(1, round(grace)),
        timeout_keep_alive=75,
        h11_max_incomplete_event_size=64 * 1024,
    )
    shown = f"[{host}]" if ":" in host else host
    print(f"listening on http://{shown}:{listener.getsockname()[1]}/retrieve", flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn takes them while it runs and raises them again afterwards
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        listener.close()
        service.close()
        retriever.close()


def _bind(host: str, port: int) -> socket.socket:
    """A listening socket: connections that come before the loop runs wait in its queue."""
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=1024
        )
    except OSError as error:
        raise EnvError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from error
