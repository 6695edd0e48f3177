"""Settings of teachers that servers score for: how they are asked, and how the run's own ones are started."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sdar_verl.errors import ConfigError

ON_FAILURE = ("wait", "fallback", "skip")
# Seconds without any server before the policy acts: a new spot node takes minutes.
DEFAULT_PATIENCE = {"wait": 1800.0, "fallback": 30.0, "skip": 30.0}


@dataclass(frozen=True)
class RemoteSettings:
    """Attributes:
    endpoints: ``http://host:port`` of each server.
    token_file: holds their token; None sends none.
    model: name under which they serve the teacher; None takes the only one they have.
    on_failure: when no server is left: ``wait``, ``fallback`` (score with the reference model) or ``skip`` (do not
        distil in this step).
    patience: seconds without any server before that, or with ``wait`` before the run ends; None for the default.
    connect_timeout, request_timeout: seconds of one connection, of one whole answer.
    retries: attempts for one row after its first.
    concurrency: requests at once at one server.
    check_seconds: after which a server shows its fingerprint again; 0 asks in every step.
    probe_tolerance: nats a token by which the probe's scores may differ, in the mean.
    """

    endpoints: tuple[str, ...]
    token_file: str | None
    model: str | None
    on_failure: str
    patience: float | None
    connect_timeout: float
    request_timeout: float
    retries: int
    concurrency: int
    check_seconds: float
    probe_tolerance: float

    def __post_init__(self) -> None:
        where = "sdar.teacher.remote"
        if isinstance(self.endpoints, str) or not all(isinstance(url, str) for url in self.endpoints or ()):
            raise ConfigError(f"{where}.endpoints must be a list of addresses, got {self.endpoints!r}")
        object.__setattr__(self, "endpoints", tuple(url.rstrip("/") for url in self.endpoints or ()))
        for url in self.endpoints:
            _check_address(url, f"{where}.endpoints")
        if len(set(self.endpoints)) != len(self.endpoints):
            raise ConfigError(f"{where}.endpoints names a server twice")
        if self.on_failure not in ON_FAILURE:
            raise ConfigError(f"{where}.on_failure={self.on_failure!r} is unknown; known: {', '.join(ON_FAILURE)}")
        for name in ("connect_timeout", "request_timeout", "probe_tolerance"):
            _require(is_number(getattr(self, name)) and getattr(self, name) > 0, f"{where}.{name}", "a number above 0")
        _require(
            self.patience is None or (is_number(self.patience) and self.patience > 0),
            f"{where}.patience", "a number above 0, or null",
        )  # fmt: skip
        _require(is_number(self.check_seconds) and self.check_seconds >= 0, f"{where}.check_seconds", "a number from 0")
        _require(_is_whole(self.retries, 0), f"{where}.retries", "a whole number from 0")
        _require(_is_whole(self.concurrency, 1), f"{where}.concurrency", "a whole number from 1")

    @property
    def dark_seconds(self) -> float:
        """Patience, or what it is by default."""
        return DEFAULT_PATIENCE[self.on_failure] if self.patience is None else float(self.patience)


@dataclass(frozen=True)
class ServerSettings:
    """Attributes:
    replicas: servers that the run starts.
    tensor_parallel_size: GPUs of each, beside those of the trainer (none on a CPU).
    gpu_memory_utilization: share of each GPU that it takes.
    start_timeout: seconds until it must answer.
    restarts: how often one that ended is started again.
    """

    replicas: int
    tensor_parallel_size: int
    gpu_memory_utilization: float
    start_timeout: float
    restarts: int

    def __post_init__(self) -> None:
        where = "sdar.teacher.server"
        for name, least in (("replicas", 1), ("tensor_parallel_size", 1), ("restarts", 0)):
            _require(_is_whole(getattr(self, name), least), f"{where}.{name}", f"a whole number from {least}")
        share = self.gpu_memory_utilization
        _require(is_number(share) and 0 < share <= 1, f"{where}.gpu_memory_utilization", "a number in (0, 1]")
        _require(is_number(self.start_timeout) and self.start_timeout > 0, f"{where}.start_timeout", "a number above 0")


def _check_address(url: str, key: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment:
        raise ConfigError(f"{key} holds {url!r}; write an address as http://host:port")
    if parts.username or parts.password:
        raise ConfigError(f"{key} holds an address with a password; put the token into sdar.teacher.remote.token_file")


def _require(good: bool, key: str, what: str) -> None:
    if not good:
        raise ConfigError(f"{key} must be {what}")


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
