"""What Prometheus reads from ``/metrics``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sdar_envs.pool import EnvPool

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)  # seconds


class Metrics:
    """The numbers of one service, in a registry of their own."""

    def __init__(self, env: str) -> None:
        self._registry = registry = CollectorRegistry()
        self.connections = Gauge("sdar_env_connections", "open WebSocket connections", registry=registry)
        self.sessions = Gauge("sdar_env_sessions", "sessions open, those that wait included", registry=registry)
        self.busy = Gauge("sdar_env_places_busy", "places of the pool that are taken", registry=registry)
        self.places = Gauge("sdar_env_places", "places of the pool", registry=registry)
        self.workers = Gauge("sdar_env_workers", "worker processes running", registry=registry)
        self.restarts = Gauge("sdar_env_worker_restarts", "lost workers replaced since the start", registry=registry)
        self.draining = Gauge("sdar_env_draining", "1 after SIGTERM", registry=registry)
        self.ended = Counter("sdar_env_sessions_ended", "sessions ended, by reason", ["reason"], registry=registry)
        self.calls = Histogram(
            "sdar_env_call_seconds", "reset and step as the service saw them", ["op"], registry=registry,
            buckets=_BUCKETS,
        )  # fmt: skip
        self.repeats = Counter("sdar_env_repeats", "requests answered a second time, not played", registry=registry)
        self.errors = Counter("sdar_env_errors", "requests refused or failed, by kind", ["kind"], registry=registry)
        self.unauthorised = Counter("sdar_env_unauthorised", "connections without the token", registry=registry)
        info = Gauge("sdar_env_info", "which environment this is", ["env"], registry=registry)
        info.labels(env).set(1)

    def text(self, pool: EnvPool, draining: bool) -> bytes:
        """All numbers in Prometheus' text format."""
        stats = pool.stats()
        self.places.set(pool.places)
        self.busy.set(stats["busy"])
        self.workers.set(stats["workers"])
        self.restarts.set(stats["restarts"])
        self.draining.set(draining)
        return generate_latest(self._registry)
