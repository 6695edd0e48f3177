"""What stands between trainer and worker in a run, for one process without Ray: ``benchmarks/methods.py``."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
import transfer_queue
from tensordict import NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

from sdar_verl.agent.privileged import Privileged, group_rows
from sdar_verl.compat import rows
from sdar_verl.compat.cpu.workers import CpuActorRolloutRefWorker


class Queue:
    """TransferQueue's calls that a step makes, answered from a dictionary: partition -> key -> field -> value."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
        self.tags: dict[str, dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
        for name in ("kv_batch_put", "kv_batch_get", "kv_clear"):
            setattr(transfer_queue, name, getattr(self, name))

    def kv_batch_put(self, keys: list[str], partition_id: str, fields: Any = None, tags: Any = None) -> KVBatchMeta:
        for name, stored in ({} if fields is None else fields).items():
            values = stored.unbind() if isinstance(stored, torch.Tensor) else rows.objects(fields, name)
            for key, value in zip(keys, values, strict=True):
                self.rows[partition_id][key][name] = value
        self.tags[partition_id].update(zip(keys, tags or [], strict=False))
        return KVBatchMeta(list(keys), [self.tags[partition_id][key] for key in keys], partition_id)

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: Any = None) -> TensorDict:
        found = [self.rows[partition_id][key] for key in keys]
        names = [name for name in select_fields or found[0] if all(name in row for row in found)]
        return TensorDict({name: column([row[name] for row in found]) for name in names}, batch_size=len(keys))

    def kv_clear(self, keys: list[str], partition_id: str) -> None:
        for key in keys:
            del self.rows[partition_id][key], self.tags[partition_id][key]


def column(values: list[Any]) -> Any:
    """Values of one field as verl packs them: rows of different lengths nested, objects in a stack."""
    if not isinstance(values[0], torch.Tensor):
        return NonTensorStack(*values)
    return torch.nested.as_nested_tensor(values, layout=torch.jagged) if values[0].dim() else torch.stack(values)


class Group:
    """verl's worker group of one worker."""

    _dispatch_info = {"actor": [0]}

    def __init__(self, worker: CpuActorRolloutRefWorker, queue: Queue):
        self.worker, self.queue, self.update_teacher = worker, queue, worker.update_teacher

    def _call(self, method: Any, batch: KVBatchMeta) -> Any:
        """Rows in, tensors out to the same rows, as verl's bridge to TransferQueue does."""
        data = self.queue.kv_batch_get(batch.keys, batch.partition_id)
        for key, value in batch.extra_info.items():
            tu.assign_non_tensor_data(tensor_dict=data, key=key, val=value)
        output = method(data)
        fields = {name: value for name, value in output.items() if isinstance(value, torch.Tensor)}
        if not fields:
            return output
        return self.queue.kv_batch_put(batch.keys, batch.partition_id, TensorDict(fields, batch_size=len(batch)))

    def compute_log_prob(self, batch: KVBatchMeta) -> KVBatchMeta:
        return self._call(self.worker.compute_log_prob, batch)

    def compute_ref_log_prob(self, batch: KVBatchMeta) -> KVBatchMeta:
        return self._call(self.worker.compute_ref_log_prob, batch)

    def update_actor(self, batch: KVBatchMeta) -> TensorDict:
        return self._call(self.worker.update_actor, batch)


class Manager:
    """The agent-loop manager's part in a step: prompts that had to wait for the group."""

    def __init__(self, privileged: Privileged):
        self.privileged = privileged

    def teacher_rows(self, waiting: list[Any]) -> list[Any]:
        return group_rows(self.privileged, waiting)

    def lost(self, step: int) -> int:
        return 0

    def pool_stats(self) -> dict[str, float]:
        return {}
