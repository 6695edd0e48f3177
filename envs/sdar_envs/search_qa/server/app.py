"""The HTTP application: ``/retrieve``, ``/health`` and ``/metrics``."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sdar_envs.search_qa.contract import BadRequest, Search, ServerLimits, answer, read_search
from sdar_envs.search_qa.retrievers.base import Retriever, RetrieverError

_LOG = logging.getLogger("sdar_retriever")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Service:
    """One engine behind HTTP.

    Searches run one after the other in a thread of their own: engines hold Python's lock and are not all thread-safe,
    so more threads gain nothing. Start more servers to use more cores; the client takes several addresses.

    Args:
        retriever: the engine; `close` is left to the caller.
        limits: what is refused.
        topk: passages for requests that do not say how many.
    """

    def __init__(self, retriever: Retriever, limits: ServerLimits | None = None, topk: int = 3) -> None:
        self.retriever, self.limits, self.topk = retriever, limits or ServerLimits(), topk
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._waiting = 0
        self._started = time.monotonic()
        self.registry = CollectorRegistry()
        self._requests = Counter("sdar_retriever_requests", "Requests by status.", ["status"], registry=self.registry)
        self._queries = Counter("sdar_retriever_queries", "Queries answered.", registry=self.registry)
        self._seconds = Histogram(
            "sdar_retriever_request_seconds", "Time from the whole request to its answer.",
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._engine_seconds = Histogram(
            "sdar_retriever_engine_seconds", "Time in the engine.", buckets=_SECONDS, registry=self.registry
        )
        gauge = Gauge("sdar_retriever_waiting", "Requests that wait or are answered now.", registry=self.registry)
        gauge.set_function(lambda: self._waiting)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/retrieve", self.retrieve, methods=["POST"]),
                Route("/health", self.health, methods=["GET"]),
                Route("/metrics", self.metrics, methods=["GET"]),
            ]
        )

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    async def retrieve(self, request: Request) -> Response:
        response = await self._retrieve(request)
        self._requests.labels(str(response.status_code)).inc()
        return response

    async def health(self, request: Request) -> Response:
        """200 while the server takes requests."""
        store = getattr(self.retriever, "store", None)
        return JSONResponse(
            {
                "status": "ok",
                "engine": self.retriever.name,
                "passages": None if store is None else len(store),
                "waiting": self._waiting,
                "seconds": round(time.monotonic() - self._started, 1),
            }
        )

    async def metrics(self, request: Request) -> Response:
        return Response(generate_latest(self.registry), headers={"Content-Type": METRICS_TYPE})

    async def _retrieve(self, request: Request) -> Response:
        if self._waiting >= self.limits.waiting:
            return _refusal(503, "the server is busy; try again", {"Retry-After": "1"})
        self._waiting += 1
        try:
            search = read_search(await self._body(request), self.limits, self.topk)
            start = time.perf_counter()
            loop = asyncio.get_running_loop()
            content = await loop.run_in_executor(self._thread, partial(self._answer, search))
            self._seconds.observe(time.perf_counter() - start)
            self._queries.inc(len(search.queries))
            return content
        except BadRequest as error:
            return _refusal(error.status, str(error))
        except ClientDisconnect:
            return _refusal(400, "the client went away")
        except RetrieverError as error:
            _LOG.error("the engine failed: %s", error)
            return _refusal(500, f"the engine failed: {error}")
        except Exception:  # noqa: BLE001 - the process's edge: one bad search must not pass for a lost connection
            _LOG.exception("the engine failed in a way it should not")
            return _refusal(500, "the engine failed; the server's log says how")
        finally:
            self._waiting -= 1

    def _answer(self, search: Search) -> Response:
        """Search and encode in the engine's thread, so that the event loop stays free for health checks."""
        start = time.perf_counter()
        found = self.retriever.search(search.queries, search.topk)
        self._engine_seconds.observe(time.perf_counter() - start)
        return JSONResponse(answer(found, search.return_scores))

    async def _body(self, request: Request) -> bytes:
        """The request's body, never more than the limit in memory."""
        limit = self.limits.body_bytes
        too_long = BadRequest(f"the body is longer than {limit} bytes", 413)
        declared = request.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > limit:
            raise too_long
        content = bytearray()

        async def read() -> None:
            async for chunk in request.stream():
                content.extend(chunk)
                if len(content) > limit:
                    raise too_long

        try:
            await asyncio.wait_for(read(), self.limits.body_seconds)
        except asyncio.TimeoutError as error:
            raise BadRequest(f"the body took longer than {self.limits.body_seconds:g} s", 408) from error
        return bytes(content)


def _refusal(status: int, reason: str, headers: dict[str, Any] | None = None) -> JSONResponse:
    return JSONResponse({"error": reason}, status_code=status, headers=headers)
