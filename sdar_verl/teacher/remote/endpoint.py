"""One teacher server: its state, its fingerprint check, one request at a time as often as wanted."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

import aiohttp

from sdar_verl.teacher.errors import TeacherRejected
from sdar_verl.teacher.probes import PROBES
from sdar_verl.teacher.remote.fingerprint import Fingerprint
from sdar_verl.teacher.remote.protocol import ScoreRow, read_scores, request_body

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 30.0  # seconds
_LARGEST_ANSWER = 256 * 2**20
_EXCERPT = 200


class Failed(Exception):
    """A request failed in a way that another one, here or elsewhere, may not."""


class Endpoint:
    """A server's address and what is known of it.

    Attributes:
        good: it has shown the right fingerprint and not failed since.
        reason: why it is not good.
        rejected: it answered, but not as the teacher.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self.model: str | None = None
        self.good, self.rejected, self.reason = False, False, "it was not asked yet"
        self.checked = self.retry_at = 0.0
        self.failures = 0

    def out(self, reason: str, *, rejected: bool = False) -> None:
        """Leave the server out until a pause is over, which doubles with every failure in a row."""
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self.failures, 20))
        self.good, self.rejected, self.reason = False, rejected, reason
        self.failures += 1
        self.retry_at = time.monotonic() + longest * random.uniform(0.5, 1.0)

    async def verify(
        self, session: aiohttp.ClientSession, name: str | None, expected: Fingerprint, least: int, tolerance: float
    ) -> list[float]:
        """Check that the server is the teacher; returns the probe's log-probabilities.

        Args:
            name: the model's served name; None takes the only one there is.
            least: tokens that it must take.
            tolerance: see `Fingerprint.check_scores`.

        Raises:
            TeacherRejected: it is not.
            Failed: it cannot tell now.
        """
        self.model = _served(await self._ask(session, "GET", "/v1/models"), name, least)
        cuts = []
        for text in PROBES:
            body = {"model": self.model, "prompt": text, "add_special_tokens": False}
            answer = await self._ask(session, "POST", "/tokenize", body)
            tokens = answer.get("tokens") if isinstance(answer, dict) else None
            if not isinstance(tokens, list):
                raise TeacherRejected("it does not show how it cuts texts (/tokenize)")
            cuts.append(tokens)
        expected.check_cuts(cuts)
        found = await self.score(session, expected.probe)
        if expected.log_probs is not None:
            expected.check_scores(found, tolerance)
        self.good, self.rejected, self.reason, self.failures = True, False, "", 0
        self.checked = time.monotonic()
        return found

    async def score(self, session: aiohttp.ClientSession, row: ScoreRow) -> list[float]:
        """Log-probabilities of the row's response, or `TeacherRejected` or `Failed`."""
        return read_scores(
            await self._ask(session, "POST", "/v1/completions", request_body(self.model, row)), self.model, row
        )

    async def _ask(self, session: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> Any:
        try:
            async with session.request(method, self.url + path, json=body, allow_redirects=False) as answer:
                content = bytearray()
                async for chunk in answer.content.iter_any():
                    content += chunk
                    if len(content) > _LARGEST_ANSWER:
                        raise TeacherRejected(f"its answer is longer than {_LARGEST_ANSWER} bytes")
                status = answer.status
        except asyncio.TimeoutError:
            raise Failed(f"no whole answer to {path} in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Failed(f"{path}: {type(error).__name__}: {error}") from error
        text = bytes(content[:_EXCERPT]).decode("utf-8", "replace")
        if status in (401, 403):
            raise TeacherRejected(f"it does not accept the token (status {status}); see sdar.teacher.remote.token_file")
        if status == 429 or status >= 500:
            raise Failed(f"{path}: status {status}: {text}")
        if status != 200:
            raise TeacherRejected(f"{path}: status {status}: {text}")
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise Failed(f"{path}: the answer is no JSON: {text}") from None


def _served(answer: Any, name: str | None, least: int) -> str:
    cards = answer.get("data") if isinstance(answer, dict) else None
    cards = [card for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []
    known = [str(card.get("id")) for card in cards]
    if name is None and len(known) != 1:
        raise TeacherRejected(f"it serves {', '.join(known) or 'no model'}; name one with sdar.teacher.remote.model")
    if name is not None and name not in known:
        raise TeacherRejected(f"it serves {', '.join(known) or 'no model'}, not {name}")
    card = cards[0 if name is None else known.index(name)]
    longest = card.get("max_model_len")
    if isinstance(longest, int) and longest < least:
        raise TeacherRejected(f"it takes {longest} tokens (--max-model-len), needed are {least}")
    return str(card["id"])
