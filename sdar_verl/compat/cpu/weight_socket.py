"""Name of the socket over which one training rank sends weights to its vLLM worker."""

from __future__ import annotations

import hashlib
import tempfile


def weight_socket(ray_session: str, replica: int, rank: int) -> str:
    """Both ends compute the same name from Ray's session (unique per cluster), the replica and the rank in it."""
    digest = hashlib.sha256(ray_session.encode()).hexdigest()[:12]
    return f"ipc://{tempfile.gettempdir()}/sdar-weights-{digest}-{replica}-{rank}.sock"
