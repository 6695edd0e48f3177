"""A retriever behind Search-R1's HTTP contract: this project's `sdar-retriever serve` or any server that speaks it.

``POST <url>`` with ``{"queries": [...], "topk": k, "return_scores": true}`` answers
``{"result": [[{"document": {"id": ..., "contents": ...}, "score": ...}, ...], ...]}``.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sdar_envs.search_qa.contract import beginning, read_answer
from sdar_envs.search_qa.retrievers.base import Hit, Retriever, RetrieverError, missing_package, settings
from sdar_envs.search_qa.retrievers.patience import LONGEST_PAUSE, Failed, Patience

_TRANSIENT = (429, 500, 502, 503, 504)
_CHUNK = 64 * 1024


class HttpRetriever(Retriever):
    """Asks a server, again where the failure may pass, until an answer, a limit or the deadline.

    Connection failures, broken or late answers and the statuses 429 and 5xx are tried again, at the next address if
    there are several; any other status, and an answer that is not the contract's, is not: it would not get better.

    Configuration:
        url: address with path (``http://127.0.0.1:8000/retrieve``), or a list of addresses of equal servers.
        timeout: seconds one attempt may take. (Headers that drip byte by byte can take longer; a step's own
            time-out ends that.)
        retries: attempts after the first.
        deadline: seconds all attempts of one search may take together. Keep ``env.pool.step_timeout`` above it.
        probe: ask once when opening, so that a wrong address shows before a run starts.
        max_bytes: longest answer that is read.

    Raises:
        RetrieverError: with the address, the number of attempts and the last reason.
    """

    name = "http"

    def __init__(
        self,
        url: str | Sequence[str],
        timeout: float = 60.0,
        retries: int = 10,
        deadline: float = 120.0,
        probe: bool = True,
        max_bytes: int = 16 * 2**20,
    ) -> None:
        try:
            import urllib3
        except ImportError as error:
            raise missing_package("urllib3", "search-qa") from error
        self._urls = [url] if isinstance(url, str) else list(url)
        if not self._urls or not all(isinstance(u, str) and u.startswith(("http://", "https://")) for u in self._urls):
            raise RetrieverError(f"url of retriever http must be http(s) addresses, got {url!r}")
        if not (_positive(timeout) and _positive(deadline) and _positive(max_bytes)):
            raise RetrieverError("timeout, deadline and max_bytes of retriever http must be positive numbers")
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise RetrieverError(f"retries of retriever http must be a whole number from 0, got {retries!r}")
        self._timeout, self._patience, self._max_bytes = timeout, Patience(retries, deadline), max_bytes
        self._urllib3 = urllib3
        self._pool = urllib3.PoolManager(retries=False)
        self._turn = random.randrange(len(self._urls))  # workers spread over the servers
        if probe:
            self._probe()

    @classmethod
    def open(cls, config: Mapping[str, Any]) -> HttpRetriever:
        defaults = {"url": None, "timeout": 60.0, "retries": 10, "deadline": 120.0, "probe": True}
        chosen = settings(cls.name, {**defaults, "max_bytes": 16 * 2**20}, config)
        if not chosen["url"]:
            raise RetrieverError(
                "retriever http needs the server's address: set url, e.g. http://127.0.0.1:8000/retrieve"
            )
        return cls(**chosen)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        if k < 1:
            raise RetrieverError(f"k is {k}; ask for at least one passage")
        if not queries:
            return []
        body = json.dumps({"queries": list(queries), "topk": k, "return_scores": True}).encode()
        return self._ask(body, len(queries), k)

    def close(self) -> None:
        self._pool.clear()

    def _probe(self) -> None:
        with self._patience.short():
            for _ in self._urls:
                self.search(["probe"], 1)

    def _ask(self, body: bytes, queries: int, k: int) -> list[list[Hit]]:
        end = time.monotonic() + self._patience.deadline

        def attempt() -> list[list[Hit]]:
            self._turn = (self._turn + 1) % len(self._urls)
            url = self._urls[self._turn]
            return read_answer(self._once(url, body, min(end, time.monotonic() + self._timeout)), queries, k, url)

        return self._patience.ask(attempt, end, lambda: f"the retriever at {self._urls[self._turn]}")

    def _once(self, url: str, body: bytes, end: float) -> bytes:
        """One attempt that ends at `end` (monotonic seconds) even if the server sends byte by byte."""
        errors, left = self._urllib3.exceptions, end - time.monotonic()
        if left <= 0:
            raise Failed("no time was left")
        try:
            answer = self._pool.request(
                "POST",
                url,
                body=body,
                headers={"Content-Type": "application/json"},
                timeout=self._urllib3.Timeout(total=left),
                preload_content=False,
                redirect=False,
            )
        except errors.LocationParseError as error:
            raise RetrieverError(f"url of retriever http cannot be used: {error}") from error
        except errors.NewConnectionError as error:  # a kind of time-out to urllib3
            raise Failed(f"it cannot be reached: {error}") from error
        except errors.TimeoutError as error:
            raise Failed(f"no answer within {left:.3g} s") from error
        except (errors.HTTPError, OSError) as error:
            raise Failed(f"{type(error).__name__}: {error}") from error
        whole = False
        try:
            content = self._read(answer, end, left)
            whole = True
        except errors.TimeoutError as error:
            raise Failed(f"the answer was not complete within {left:.3g} s") from error
        except (errors.HTTPError, OSError) as error:
            raise Failed(f"the answer broke off ({type(error).__name__}: {error})") from error
        finally:
            if whole:
                answer.release_conn()
            else:
                answer.close()
        if answer.status in _TRANSIENT:
            raise Failed(f"status {answer.status}: {beginning(content)}", _retry_after(answer.headers))
        if answer.status != 200:
            raise RetrieverError(
                f"the retriever at {url} refused the search: status {answer.status}: {beginning(content)}"
            )
        return content

    def _read(self, answer: Any, end: float, allowed: float) -> bytes:
        content = bytearray()
        socket = answer.connection.sock if answer.connection else None
        while True:
            left = end - time.monotonic()
            if left <= 0:
                raise Failed(f"the answer was not complete within {allowed:.3g} s")
            if socket is not None:
                socket.settimeout(left)
            chunk = answer.read1(_CHUNK)
            if not chunk:
                return bytes(content)
            content += chunk
            if len(content) > self._max_bytes:
                raise RetrieverError(f"the retriever's answer is longer than max_bytes={self._max_bytes}")


def _retry_after(headers: Mapping[str, str]) -> float:
    try:
        asked = float(headers.get("Retry-After", "0"))
    except ValueError:
        return 0.0
    return min(max(asked, 0.0), LONGEST_PAUSE) if math.isfinite(asked) else 0.0


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


RETRIEVER = HttpRetriever
