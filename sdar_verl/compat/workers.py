"""verl's actor/reference/rollout worker, with a reference model that may follow the actor."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from tensordict import TensorDict
from torch.distributed.fsdp import FSDPModule
from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker, TrainingWorkerConfig

from sdar_verl.compat.exact_rope import restore_rope
from sdar_verl.compat.exported_model import write_model
from sdar_verl.compat.kept_logits import logits_kept
from sdar_verl.compat.loss import SdarLoss
from sdar_verl.compat.select_rows import rows_at_once
from sdar_verl.core.moving_average import update_moving_average
from sdar_verl.errors import SdarError

# put into the reference's part of the worker's config, and taken out before verl reads it
TEACHER_PATH = "sdar_teacher_path"  # another model as teacher
AVERAGE = "sdar_average"  # whether the teacher is a moving average


class SdarTrainingWorker(TrainingWorker):
    """Stock worker that asks its engine for the logits where the loss compares distributions; selects rows at once."""

    def train_mini_batch(self, data: TensorDict) -> TensorDict:
        with rows_at_once():
            return super().train_mini_batch(data)

    def train_batch(self, data: TensorDict) -> TensorDict:
        if not getattr(self.loss_fn, "needs_logits", False):
            return super().train_batch(data)
        tu.assign_non_tensor(data, distillation_use_topk=True)
        with logits_kept():
            return super().train_batch(data)

    # verl finds the dispatch rule of a method on the function object
    train_batch.__dict__.update(TrainingWorker.train_batch.__dict__)
    train_mini_batch.__dict__.update(TrainingWorker.train_mini_batch.__dict__)


class SdarActorRolloutRefWorker(ActorRolloutRefWorker):
    """Stock worker whose loss knows the engines; the reference model's shards on this rank may follow the actor's."""

    actor_worker_cls = SdarTrainingWorker

    def init_model(self):
        with open_dict(self.config.ref):
            path, average = self.config.ref.pop(TEACHER_PATH, None), self.config.ref.pop(AVERAGE, False)
        if path is not None:
            self.ref_worker_cls = partial(_reference, path=path, policy=self.config.model)
        super().init_model()
        for worker in (self.actor, self.ref):
            if worker is not None:
                restore_rope(worker.engine.module)
        if average and self.ref is None:
            # with adapters there is no reference model: a moving average is kept of the adapters alone
            self._average = {name: shard.float().clone() for name, shard in _adapters(self.actor).items()}

    # verl finds the dispatch rule of a method on the function object
    init_model.__dict__.update(ActorRolloutRefWorker.init_model.__dict__)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def set_loss_fn(self, loss_fn: Any) -> None:
        if isinstance(loss_fn, SdarLoss):
            loss_fn.bind(self.actor.engine, None if self.ref is None else self.ref.engine)
        self.actor.set_loss_fn(loss_fn=loss_fn)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def update_teacher(self, rate: float) -> None:
        """One step of the moving average towards the actor's current weights (with LoRA: its adapters)."""
        student = _adapters(self.actor) if self.ref is None else _shards(self.actor)
        update_moving_average(self._teacher(), student.items(), rate)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def compute_average_log_prob(self, data: TensorDict) -> TensorDict:
        """`compute_log_prob` of the actor's base weights with the averaged adapters in place of its own."""
        own = {name: shard.clone() for name, shard in _adapters(self.actor).items()}
        _put(self.actor, self._average)
        try:
            output = self.actor.infer_batch(data)
        finally:
            _put(self.actor, own)
        return output.cpu() if output is not None else None

    def _teacher(self) -> dict[str, torch.Tensor]:
        """This rank's part of the averaged weights."""
        return self._average if self.ref is None else _shards(self.ref)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def save_teacher(self, folder: str) -> None:
        """Write this rank's shards into the checkpoint folder `folder`."""
        path = self._teacher_file(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({name: shard.cpu() for name, shard in self._teacher().items()}, path)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def load_teacher(self, folder: str) -> None:
        """Read them back; raises `SdarError` if the checkpoint has none for this rank and world size."""
        path = self._teacher_file(folder)
        if not path.is_file():
            raise SdarError(
                f"the checkpoint has no {path.name}: it was written without sdar.teacher.update_rate, or by another "
                "number of ranks"
            )
        update_moving_average(self._teacher(), torch.load(path, map_location="cpu").items(), rate=1.0)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def export_teacher(self, folder: str, dtype: str) -> None:
        """Write the reference model, gathered from all ranks, into `folder` as Hugging Face's classes read it.

        Without a tokenizer. The folder appears when it is complete; `dtype` (``bfloat16``, ...) is that of its weights.
        """
        engine = self.ref.engine
        _shards(self.ref)  # in their place again, whatever the last forward pass left
        parameters, _ = engine.get_per_tensor_param()
        whole = {}
        for name, value in parameters:  # each rank takes part in gathering
            if self.rank == 0:
                whole[name] = value.detach().to("cpu", getattr(torch, dtype)).contiguous().clone()
        if self.rank == 0:
            write_model(Path(folder), engine.model_config.hf_config, whole)

    def _teacher_file(self, folder: str) -> Path:
        return Path(folder) / f"teacher_world_size_{self.world_size}_rank_{self.rank}.pt"


def _reference(config: TrainingWorkerConfig, path: str, policy: DictConfig) -> TrainingWorker:
    """verl's reference worker with another model's weights and architecture; how it computes is as the policy's."""
    own = OmegaConf.merge(policy, {"path": path, "tokenizer_path": None, "hf_config_path": None})
    attention = policy.override_config.get("attn_implementation")
    with open_dict(own):  # the rest of the overrides describes the policy
        own.override_config = {} if attention is None else {"attn_implementation": attention}
    model = omega_conf_to_dataclass(own)
    model.mtp = config.model_config.mtp
    return TrainingWorker(config=replace(config, model_config=model))


def _shards(worker: TrainingWorker) -> dict[str, torch.Tensor]:
    """This rank's part of each parameter."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # verl moves weights to the host without waiting
    module = worker.engine.module
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()  # a forward pass may have left whole parameters in place of the shards
    return {name: parameter.data.to_local() for name, parameter in module.named_parameters()}


def _adapters(worker: TrainingWorker) -> dict[str, torch.Tensor]:
    """This rank's part of each LoRA parameter."""
    return {name: shard for name, shard in _shards(worker).items() if "lora_" in name}


@torch.no_grad()
def _put(worker: TrainingWorker, values: dict[str, torch.Tensor]) -> None:
    """Write `values` into the adapters; their storage is looked up anew, since offloading may have moved it."""
    for name, shard in _adapters(worker).items():
        shard.copy_(values[name])
