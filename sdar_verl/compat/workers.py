"""verl's actor/reference/rollout worker, with a reference model that may follow the actor."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.distributed.fsdp import FSDPModule
from verl.single_controller.base.decorator import Dispatch, register
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from sdar_verl.core.moving_average import update_moving_average
from sdar_verl.errors import SdarError


class SdarActorRolloutRefWorker(ActorRolloutRefWorker):
    """Stock worker; the methods below act on this rank's shards of the reference model, the teacher's weights."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def update_teacher(self, rate: float) -> None:
        """One step of the moving average towards the actor's current weights."""
        update_moving_average(_shards(self.ref), _shards(self.actor).items(), rate)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def save_teacher(self, folder: str) -> None:
        """Write this rank's shards into the checkpoint folder `folder`."""
        path = self._teacher_file(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({name: shard.cpu() for name, shard in _shards(self.ref).items()}, path)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def load_teacher(self, folder: str) -> None:
        """Read them back; raises `SdarError` if the checkpoint has none for this rank and world size."""
        path = self._teacher_file(folder)
        if not path.is_file():
            raise SdarError(
                f"the checkpoint has no {path.name}: it was written without sdar.teacher.update_rate, or by another "
                "number of ranks"
            )
        update_moving_average(_shards(self.ref), torch.load(path, map_location="cpu").items(), rate=1.0)

    def _teacher_file(self, folder: str) -> Path:
        return Path(folder) / f"teacher_world_size_{self.world_size}_rank_{self.rank}.pt"


def _shards(worker: TrainingWorker) -> dict[str, torch.Tensor]:
    """This rank's part of each parameter."""
    module = worker.engine.module
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()  # a forward pass may have left whole parameters in place of the shards
    return {name: parameter.data.to_local() for name, parameter in module.named_parameters()}
