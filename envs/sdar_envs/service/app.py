"""The service's addresses: the WebSocket that sessions are played over, and health, readiness and metrics over HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from sdar_envs.service import messages
from sdar_envs.service import protocol as p
from sdar_envs.service.auth import is_allowed
from sdar_envs.service.core import EnvService
from sdar_envs.service.logs import LOG, log
from sdar_envs.service.protocol import Refusal

_GOOD_BYE = 1000  # close code of a client that has finished
_TOO_BIG, _POLICY = 1009, 1008


def make_app(service: EnvService, token: str | None) -> FastAPI:
    """The application; `token` is what clients must carry, None lets everybody in."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    async def health() -> Response:
        """200 while the process can do its work; an orchestrator replaces it otherwise."""
        broken = service.pool.broken
        return JSONResponse({"status": broken or "ok", "env": service.name}, 503 if broken else 200)

    @app.get("/ready")
    async def ready() -> Response:
        """200 while new sessions are taken."""
        return JSONResponse({"status": service.unready or "ok"}, 503 if service.unready else 200)

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        if not is_allowed(request.headers.get("authorization"), token):
            service.metrics.unauthorised.inc()
            return Response("the token is missing or wrong\n", 401)
        text = service.metrics.text(service.pool, service.draining)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.websocket(p.PATH)
    async def play(websocket: WebSocket) -> None:
        refused = _refusal(websocket, service, token)
        if refused is not None:
            return await websocket.send_denial_response(refused)
        await websocket.accept()
        await WebSocketConnection(websocket, service).serve()

    return app


def _refusal(websocket: WebSocket, service: EnvService, token: str | None) -> Response | None:
    if not is_allowed(websocket.headers.get("authorization"), token):
        service.metrics.unauthorised.inc()
        log("connection without the token", logging.WARNING, client=_address(websocket))
        return Response("the token is missing or wrong\n", 401)
    if "origin" in websocket.headers:  # only browsers send it, and a page must not reach a service on localhost
        return Response("not for browsers\n", 403)
    if len(service.connections) >= service.limits.max_connections:
        return Response("too many connections\n", 503)
    return None


class WebSocketConnection:
    """One client. Requests are served side by side, each answered when it is done."""

    def __init__(self, websocket: WebSocket, service: EnvService) -> None:
        self._websocket, self._service = websocket, service
        self._tasks: set[asyncio.Task] = set()
        self._bad = 0

    async def serve(self) -> None:
        """Until the connection ends; its sessions are kept for a while unless the client said good-bye."""
        service, code = self._service, 0
        service.connections.add(self)
        service.metrics.connections.set(len(service.connections))
        try:
            code = await self._receive()
        finally:
            for task in self._tasks:  # the playing itself goes on: its answer may be asked for again
                task.cancel()
            service.lose(self, for_good=code == _GOOD_BYE)
            service.metrics.connections.set(len(service.connections))
            log("connection ended", code=code, client=_address(self._websocket))

    async def send(self, message: Mapping[str, Any]) -> None:
        try:
            await self._websocket.send_text(json.dumps(message))
        except (WebSocketDisconnect, RuntimeError):  # RuntimeError: it was closed meanwhile
            pass  # the client asks again on its next connection

    async def _receive(self) -> int:
        """Read requests until the end; returns the close code."""
        limits = self._service.limits
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return message.get("code") or 0
            text = message.get("text") or message.get("bytes") or ""
            try:
                request = messages.read(text)
            except Refusal as refusal:
                self._bad += 1
                await self._reply(messages.read_id(text), p.error(refusal.kind, str(refusal)))
                if self._bad >= limits.max_bad_messages:
                    log("too many bad messages", logging.WARNING, client=_address(self._websocket))
                    await self._websocket.close(_POLICY, "too many messages outside the protocol")
                    return _POLICY
                continue
            if len(self._tasks) >= limits.max_in_flight:
                # awaited here: a client that floods us and reads nothing is not read from any more
                busy = p.error(p.BUSY, f"more than {limits.max_in_flight} requests of one connection are unanswered")
                await self._reply(request.id, busy)
                continue
            task = asyncio.get_running_loop().create_task(self._serve_one(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve_one(self, request: messages.Request) -> None:
        try:
            answer = await self._service.answer(request, self)
        except Exception as error:  # noqa: BLE001 - the border of the process: a client must not wait for ever
            LOG.exception("internal error", extra={"fields": {"op": request.op}})
            answer = p.error(p.FAILED, f"internal error of the service: {type(error).__name__}; its log says more")
        await self._reply(request.id, answer)

    async def _reply(self, request_id: int | None, answer: Mapping[str, Any]) -> None:
        if "error" in answer:
            self._service.metrics.errors.labels(answer["error"]["kind"]).inc()
        await self.send({"id": request_id, **answer})


def _address(websocket: WebSocket) -> str:
    return websocket.client.host if websocket.client else "?"
