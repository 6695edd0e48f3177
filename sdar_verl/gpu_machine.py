"""What a run on this machine's own GPUs needs of it: enough of them, and no other run beside it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdar_verl.errors import ConfigError

LOCK = Path("/tmp/sdar-verl-gpu-run.lock")  # where verl keeps its sockets too, whatever TMPDIR says


@contextmanager
def alone(lock: Path = LOCK) -> Iterator[None]:
    """No other run with a Ray of its own has the GPUs of this machine meanwhile.

    verl names the socket through which weights go to vLLM after Ray's job, replica and rank, and the first job of every
    Ray has the same number: two runs would take each other's weights. The lock goes with the process, however it ends.

    Raises:
        ConfigError: there is one.
    """
    try:
        held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # another user's file; to lock it, reading is enough
        held = os.open(lock, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another run is at work on this machine's GPUs (it holds {lock}), and verl 0.9.1 would give each the "
                "other's weights; wait for it, or run each in a container with a /tmp of its own"
            ) from None
        yield
    finally:
        os.close(held)


def require_gpus(wanted: int, what: str) -> None:
    """Raises `ConfigError` if this process may use fewer than `wanted` GPUs; `what` says for what they are."""
    import torch

    there = torch.cuda.device_count()
    if there < wanted:
        raise ConfigError(
            f"{what} take {wanted} GPUs, and there are {there} here (CUDA_VISIBLE_DEVICES="
            f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}); lower trainer.n_gpus_per_node, "
            "sdar.teacher.server.replicas or its tensor_parallel_size"
        )
