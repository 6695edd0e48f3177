"""verl's workers on the CPU."""

from __future__ import annotations

import os
from typing import Any

import torch
from verl.workers.engine_workers import TrainingWorker

from sdar_verl.compat.workers import SdarActorRolloutRefWorker


def threads_of_a_rank(ranks: int) -> int:
    """Cores for each of `ranks` workers on this machine: all, since the other processes wait while these compute."""
    return max(1, len(os.sched_getaffinity(0)) // ranks)


def set_up_process() -> None:
    """The machine's cores and a process group, which the roles of one process share."""
    torch.set_num_threads(threads_of_a_rank(int(os.environ["RAY_LOCAL_WORLD_SIZE"])))
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(backend="cpu:gloo")


class CpuCriticWorker(TrainingWorker):
    """Stock worker with a critic, set up as `CpuActorRolloutRefWorker` is."""

    def __init__(self, *args: Any, **kwargs: Any):
        set_up_process()
        super().__init__(*args, **kwargs)


class CpuActorRolloutRefWorker(SdarActorRolloutRefWorker):
    """Stock worker with the machine's cores and a process group of its own.

    verl's backend string (``cpu:gloo,cpu:gloo``) names the CPU twice, and Ray gives an actor one thread.
    """

    def init_model(self):
        set_up_process()
        super().init_model()

    # verl finds the dispatch rule of a method on the function object
    init_model.__dict__.update(SdarActorRolloutRefWorker.init_model.__dict__)
