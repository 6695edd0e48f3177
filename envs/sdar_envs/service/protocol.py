"""What service and client agree on: one JSON object per WebSocket text message.

A request is ``{"id": n, "op": ..., ...}``; each gets exactly one answer with the same id, ``{"id": n, "ok": value}`` or
``{"id": n, "error": {"kind": ..., "message": ...}}``, in any order. ``{"event": ...}`` comes from the service unasked.

| op | fields | ok |
|---|---|---|
| ``hello`` | ``protocol`` | what the service plays, its settings and its limits |
| ``tasks`` | ``split`` | ``{"count", "digest"}`` of a split |
| ``reset`` | ``session``, ``split``, ``task``, ``seed`` | ``[observation, info]`` |
| ``step`` | ``session``, ``seq``, ``action`` | ``[observation, reward, terminated, truncated, info]`` |
| ``close`` | ``session`` | ``null`` |
| ``resume`` | ``sessions`` | ``null``; they are this connection's now, those that are known |

A session is one episode. The client chooses its id (32 hexadecimal digits, drawn at random), `reset` opens it, and the
k-th step carries ``seq`` k. Sessions do not belong to a connection: a request that got no answer is sent again, on
another connection if need be, and the answer is the one that was given before; no step is ever played twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from sdar_envs.base import TaskRef

VERSION = 2
PATH = "/v1/play"
TOKEN_VARIABLE = "SDAR_ENV_TOKEN"
DRAINING = "draining"  # an event: no new sessions here; those in play go on

# kinds of errors
BAD_MESSAGE = "bad_message"  # not in the protocol
TOO_LARGE = "too_large"
UNKNOWN_TASK = "unknown_task"
UNKNOWN_SESSION = "unknown_session"  # never opened here, ended, expired, or the service was restarted
CONFLICT = "conflict"  # a sequence number that is neither the last one nor the next one
LIMIT = "limit"  # the session has used up what one session may use
FAILED = "failed"  # the environment failed; the episode is over
BUSY = "busy"  # no place now: come again later, or go elsewhere
UNAVAILABLE = "unavailable"  # draining, or its workers cannot be started any more: go elsewhere


class Refusal(Exception):
    """A request that is not carried out.

    Attributes:
        kind: one of the kinds above.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def error(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"kind": kind, "message": message}}


def task_digest(tasks: Iterable[TaskRef]) -> dict[str, Any]:
    """Number and hash of the tasks' ids and types, whatever their order; not of their content."""
    lines = sorted(f"{task.id}\t{task.task_type}" for task in tasks)
    return {"count": len(lines), "digest": hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()}
