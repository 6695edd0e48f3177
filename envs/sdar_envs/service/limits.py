"""How much a service takes on."""

from __future__ import annotations

from dataclasses import dataclass, fields

from sdar_envs.base import EnvError


@dataclass(frozen=True)
class Limits:
    """All must be positive; seconds unless said.

    Attributes:
        max_connections: WebSocket connections at once.
        max_in_flight: unanswered requests of one connection; more are answered `busy`.
        max_waiting: sessions beyond the pool's places that may wait for one; more are answered `busy`.
        max_message_bytes: size of one message; a larger one ends its connection.
        max_action_bytes: size of one action in UTF-8.
        max_bad_messages: messages outside the protocol before a connection is closed.
        max_steps: steps of one session.
        begin_timeout: from a session's `reset` to its first observation, waiting for a place included.
        idle_timeout: without a request before a session is ended, its client still connected.
        resume_timeout: without a connection before a session is ended.
        drain_timeout: for the sessions in play after SIGTERM.
    """

    max_connections: int = 256
    max_in_flight: int = 1024
    max_waiting: int = 1024
    max_message_bytes: int = 2**20
    max_action_bytes: int = 2**16
    max_bad_messages: int = 10
    max_steps: int = 10_000
    begin_timeout: float = 600.0
    idle_timeout: float = 1800.0
    resume_timeout: float = 120.0
    drain_timeout: float = 25.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise EnvError(f"{field.name} must be positive, got {getattr(self, field.name)!r}")
