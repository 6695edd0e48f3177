"""The client's side of one WebSocket connection: requests out, answers back to whoever asked."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from sdar_envs.base import EnvError
from sdar_envs.service.protocol import PATH

_ANSWER_LIMIT = 64 * 2**20  # bytes, as of the pool's own workers
_SERVICE_STOPPED = 1012  # close code of a service that has ended
_REFUSED = (401, 403, 404)


class LinkLost(EnvError):
    """The connection cannot be made, or ended before the answer came.

    Attributes:
        final: asking again on a new connection would not help: the service stopped, or is stuck.
    """

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


def address_of(endpoint: str) -> str:
    """The WebSocket address of an endpoint such as ``ws://host:8400``; `EnvError` says what is wrong with it."""
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError as error:
        raise EnvError(f"endpoint {endpoint!r}: {error}") from error
    if parts.scheme not in ("ws", "wss") or not parts.hostname or (port is None and parts.scheme == "ws"):
        raise EnvError(f"endpoint {endpoint!r} is not of the form ws://host:port or wss://host[:port]")
    if parts.username or parts.password or parts.query or parts.fragment or parts.path not in ("", "/"):
        raise EnvError(f"an endpoint is ws://host:port and nothing more, got one with more behind {parts.hostname!r}")
    return f"{parts.scheme}://{parts.netloc}{PATH}"


class Link:
    """One open connection; made by `open`, useless after `lost` is set.

    Args:
        on_event: called with the name of each event.
        on_lost: called once, when the connection ended.
    """

    def __init__(self, socket: ClientConnection, on_event: Callable[[str], None], on_lost: Callable[[], None]) -> None:
        self._socket, self._on_event, self._on_lost = socket, on_event, on_lost
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ids = itertools.count()
        self.lost: LinkLost | None = None
        self._reader = asyncio.get_running_loop().create_task(self._read())

    @classmethod
    async def open(
        cls,
        endpoint: str,
        token: str | None,
        timeout: float,
        ping: float,
        on_event: Callable[[str], None],
        on_lost: Callable[[], None] = lambda: None,
    ) -> Link:
        """Connect within `timeout` seconds; `ping` seconds without a sign of life end the connection later on.

        Raises:
            LinkLost: nothing answers there now.
            EnvError: the service refuses us, which trying again will not change.
        """
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            socket = await connect(
                address_of(endpoint), additional_headers=headers, open_timeout=timeout, compression=None,
                max_size=_ANSWER_LIMIT, ping_interval=ping, ping_timeout=ping, close_timeout=2, proxy=None,
                user_agent_header=None,
            )  # fmt: skip
        except InvalidStatus as error:
            status = error.response.status_code
            if status in _REFUSED:
                what = "wants another token" if status == 401 else f"answers {status}; is it an environment service?"
                raise EnvError(f"the service at {endpoint} {what}") from error
            raise LinkLost(f"{endpoint} answers with status {status}") from error
        except (OSError, asyncio.TimeoutError, InvalidHandshake, InvalidURI) as error:
            raise LinkLost(f"{endpoint} cannot be reached: {error or type(error).__name__}") from error
        return cls(socket, on_event, on_lost)

    async def ask(self, message: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Send one request; returns its answer, with ``ok`` or ``error``. `LinkLost` if none came."""
        if self.lost is not None:
            raise self.lost
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await self._socket.send(json.dumps({"id": number, **message}))
            return await asyncio.wait_for(answer, timeout)
        except asyncio.TimeoutError:  # pings still pass, so the others' answers may come
            raise LinkLost(f"no answer to {message['op']!r} within {timeout:g} s", final=True) from None
        except ConnectionClosed as error:
            raise self._lose(_reason(error)) from error
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        """Say good-bye: the service ends our sessions at once."""
        self._lose(LinkLost("the connection was closed"))
        await self._socket.close()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async for text in self._socket:
                self._take(text)
            error = LinkLost("the service closed the connection")
        except ConnectionClosed as closed:
            error = _reason(closed)
        except (ValueError, KeyError, TypeError, AttributeError) as unreadable:
            error = LinkLost(f"the service sent what is not in the protocol: {type(unreadable).__name__}")
            self._socket.transport.abort()
        self._lose(error)

    def _take(self, text: str | bytes) -> None:
        message = json.loads(text)
        if "event" in message:
            self._on_event(message["event"])
            return
        if message["id"] is None:  # a message of ours could not even be read: nobody would get its answer
            raise ValueError("an answer without an id")
        if "ok" not in message and set(message["error"]) != {"kind", "message"}:
            raise ValueError("an answer that is none")
        answer = self._waiting.get(message["id"])
        if answer is not None and not answer.done():  # else nobody waits for it any more
            answer.set_result(message)

    def _lose(self, error: LinkLost) -> LinkLost:
        if self.lost is None:
            self.lost = error
            self._on_lost()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(self.lost)
                answer.exception()  # seen, should its owner have gone
        return self.lost


def _reason(error: ConnectionClosed) -> LinkLost:
    code = error.rcvd.code if error.rcvd is not None else None
    return LinkLost(f"the connection ended: {error}", final=code == _SERVICE_STOPPED)
