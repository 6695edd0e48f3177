"""verl's actor/reference/rollout worker on the CPU."""

from __future__ import annotations

import torch
from verl.workers.engine_workers import ActorRolloutRefWorker


class CpuActorRolloutRefWorker(ActorRolloutRefWorker):
    """Creates the process group first: verl's own backend string (``cpu:gloo,cpu:gloo``) names the CPU twice."""

    def init_model(self):
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group(backend="cpu:gloo")
        super().init_model()

    # verl finds the dispatch rule of a method on the function object
    init_model.__dict__.update(ActorRolloutRefWorker.init_model.__dict__)
