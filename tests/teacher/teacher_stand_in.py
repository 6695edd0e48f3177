"""A real HTTP server that speaks vLLM's contract with made-up scores, and misbehaves on demand."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from aiohttp import web

TOKEN = "a-token-of-these-tests-alone"


class Cutter:
    """A tokenizer: bytes, shifted."""

    def __init__(self, shift: int = 0):
        self.shift = shift

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [byte + self.shift for byte in text.encode()]


def made_up(ids: list[int], seed: int = 0) -> list[float]:
    """Scores of all tokens but the first, each of all tokens up to it."""
    found, state = [], hashlib.sha256(str((seed, ids[0])).encode())
    for token in ids[1:]:
        state.update(b"%d," % token)
        found.append(-int.from_bytes(state.digest()[:4], "big") / 2**30)
    return found


class StandIn:
    """A server in a thread; a context manager.

    Attributes:
        seed: of its weights; another one is another model.
        answer: changes the answer of a score, if set: ``answer(body, answer)`` returns what is sent, a status, None for
            a broken connection, or ``"hang"``.
        held: whether a score is to wait, asked again and again; what a test says must have come first has then come
            first on a busy machine too.
        scored: scores that it was asked for, the probe's included.
    """

    def __init__(self, seed: int = 0, *, name: str = "teacher", longest: int = 4096, cutter: Cutter | None = None):
        self.seed, self.name, self.longest, self.cutter = seed, name, longest, cutter or Cutter()
        self.answer: Callable[[dict, dict], Any] | None = None
        self.held: Callable[[dict], bool] = lambda _: False
        self.scored = self.at_once = self.most_at_once = 0
        self.pause = 0.0
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> StandIn:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, at the same address each time."""
        started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)

    def stop(self) -> None:
        """Go away; open connections break."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join(10)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(started))
        self._loop.close()

    async def _serve(self, started: threading.Event) -> None:
        self._stopped = asyncio.Event()
        app = web.Application(middlewares=[self._guard], client_max_size=2**26)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/v1/completions", self._completions)
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True).start()
        started.set()
        await self._stopped.wait()
        await runner.cleanup()
        await asyncio.sleep(0.05)  # connections close in the loop's next turns, and not at all if it has none

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        return await handler(request)

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": self.name, "max_model_len": self.longest}]})

    async def _tokenize(self, request: web.Request) -> web.Response:
        return web.json_response({"tokens": self.cutter.encode((await request.json())["prompt"])})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.scored += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.pause)
            while self.held(body) and not self._stopped.is_set():
                await asyncio.sleep(0.01)
            ids = body["prompt"]
            values = [{str(i): {"logprob": v}} for i, v in zip(ids[1:], made_up(ids, self.seed), strict=True)]
            found: Any = {
                "model": body["model"],
                "choices": [{"prompt_token_ids": ids, "prompt_logprobs": [None, *values]}],
            }
            if self.answer is not None:
                found = self.answer(body, found)
            if found == "hang":
                await self._stopped.wait()
            if isinstance(found, int):
                return web.Response(status=found, text="no")
            if isinstance(found, str):
                return web.Response(text=found)
            if found is None:
                request.transport.close()
                return web.Response()
            return web.json_response(found)
        finally:
            self.at_once -= 1
