"""verl's actor/reference/rollout worker on the CPU."""

from __future__ import annotations

import os

import torch

from sdar_verl.compat.workers import SdarActorRolloutRefWorker


def threads_of_a_rank(ranks: int) -> int:
    """Cores for each of `ranks` workers on this machine: all, since the other processes wait while these compute."""
    return max(1, len(os.sched_getaffinity(0)) // ranks)


class CpuActorRolloutRefWorker(SdarActorRolloutRefWorker):
    """Stock worker with the machine's cores and a process group of its own.

    verl's backend string (``cpu:gloo,cpu:gloo``) names the CPU twice, and Ray gives an actor one thread.
    """

    def init_model(self):
        torch.set_num_threads(threads_of_a_rank(int(os.environ["RAY_LOCAL_WORLD_SIZE"])))
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group(backend="cpu:gloo")
        super().init_model()

    # verl finds the dispatch rule of a method on the function object
    init_model.__dict__.update(SdarActorRolloutRefWorker.init_model.__dict__)
