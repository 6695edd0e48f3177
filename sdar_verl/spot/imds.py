"""Asks the metadata service of an EC2 instance (IMDSv2) whether the instance is about to go away.

Two signals: the *rebalance recommendation*, which may come early or not at all, and the *instance action*, two minutes
before the end. The service's address can be set by ``AWS_EC2_METADATA_SERVICE_ENDPOINT``, as for AWS's own clients.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime, timezone

from sdar_verl.errors import ConfigError
from sdar_verl.spot.notice import SAVE, STOP

ENDPOINT = "http://169.254.169.254"
VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
ACTION, REBALANCE = "/latest/meta-data/spot/instance-action", "/latest/meta-data/events/recommendations/rebalance"
_TOKEN_SECONDS = 21600
_TIMEOUT = 2.0
FIRST_PAUSES = (1.0, 3.0, 6.0)  # seconds between the tries of the first question: a fresh instance may be slow


class MetadataError(Exception):
    """The metadata service did not answer as it should."""


class Metadata:
    """A client of the service; fetches its session token when it has none, or when it has expired."""

    def __init__(self, endpoint: str | None = None):
        self.endpoint = (endpoint or os.environ.get(VARIABLE) or ENDPOINT).rstrip("/")
        self._token: str | None = None
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # it is on the link itself

    def get(self, path: str) -> str | None:
        """The text at `path`; None where there is none (404); raises `MetadataError`."""
        for fresh in (False, True):
            if self._token is None or fresh:
                self._token = self._ask("PUT", "/latest/api/token", {
                    "X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)
                })  # fmt: skip
            try:
                return self._ask("GET", path, {"X-aws-ec2-metadata-token": self._token or ""})
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return None
                if error.code != 401 or fresh:
                    raise MetadataError(f"{self.endpoint}{path} answered {error.code}") from error
        return None

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> str:
        try:
            with self._open(
                urllib.request.Request(self.endpoint + path, None, headers, method=method), timeout=_TIMEOUT
            ) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            if method == "PUT":
                raise MetadataError(f"{self.endpoint} gives no session token: {error.code}") from error
            raise
        except (OSError, ValueError, http.client.HTTPException) as error:  # also URLError and time-outs
            raise MetadataError(f"{self.endpoint} cannot be reached: {error}") from error


class Watcher:
    """A thread that asks every `poll_seconds`, and tells `notify(action, why)` what it finds.

    Args:
        on_rebalance: ``ignore``, ``save`` or ``stop``. A recommendation older than this watcher is passed over: it
            stays in the service, and would stop each start on this instance.

    Raises:
        ConfigError: there is no metadata service (it was asked several times), so nothing would ever be noticed.
    """

    def __init__(
        self,
        notify: Callable[[str, str], object],
        *,
        on_rebalance: str,
        poll_seconds: float,
        metadata: Metadata | None = None,
        say: Callable[[str], None] = lambda text: print(f"[sdar] {text}", flush=True),
    ):
        self._notify, self._on_rebalance, self._poll_seconds, self._say = notify, on_rebalance, poll_seconds, say
        self._metadata = metadata or Metadata()
        self._silent = False
        self._stopped = threading.Event()
        self._since = datetime.now(timezone.utc).replace(microsecond=0)  # notices have whole seconds
        self._require_service()
        self._thread = threading.Thread(target=self._work, name="spot-watcher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join(3 * _TIMEOUT)

    def _require_service(self) -> None:
        for pause in (*FIRST_PAUSES, None):
            try:
                self._metadata.get(ACTION)
                return
            except MetadataError as error:
                if pause is None:
                    raise ConfigError(
                        f"sdar.spot.imds: {error}. On EC2, allow IMDSv2 (in a container: hop limit 2); elsewhere set "
                        "sdar.spot.imds=false"
                    ) from error
                time.sleep(pause)

    def _work(self) -> None:
        while not self._stopped.wait(self._poll_seconds):
            try:
                self.look()
                self._silent = False
            except MetadataError as error:  # it may come back
                if not self._silent:
                    self._say(f"no news about this instance: {error}")
                self._silent = True
            except OSError as error:  # a full disk; it is put again at the next look
                if not self._silent:
                    self._say(f"the trainer cannot be told about this instance: {error}")
                self._silent = True

    def look(self) -> None:
        """Ask once."""
        if (found := self._metadata.get(ACTION)) is not None:
            self._notify(STOP, f"spot interruption: {_say_action(found)}")
        elif self._on_rebalance != "ignore" and (found := self._metadata.get(REBALANCE)) is not None:
            if not self._is_old(found):
                action = SAVE if self._on_rebalance == "save" else STOP
                self._notify(action, f"rebalance recommendation: {found.strip()}")

    def _is_old(self, recommendation: str) -> bool:
        """From before this start; one without a time that can be read counts as new."""
        try:
            noticed = datetime.strptime(json.loads(recommendation)["noticeTime"], "%Y-%m-%dT%H:%M:%SZ")
        except (ValueError, KeyError, TypeError):
            return False
        return noticed.replace(tzinfo=timezone.utc) < self._since


def _say_action(text: str) -> str:
    try:
        content = json.loads(text)
        return f"{content['action']} at {content['time']}"
    except (ValueError, KeyError, TypeError):
        return text.strip()
