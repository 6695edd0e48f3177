"""What verl adds to a vLLM worker process, adapted to the CPU. Loaded inside vLLM's worker only."""

from __future__ import annotations

import os

import torch
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

from sdar_verl.compat.cpu.weight_socket import weight_socket


def _keep_plain_linear(layer: torch.nn.Module, remove_weight: bool) -> None:
    """vLLM's CPU dispatch repacks a linear weight and drops the original, which a later weight update needs."""
    layer.cpu_linear = torch.nn.functional.linear


class CpuWorkerExtension(vLLMColocateWorkerExtension):
    """Keeps linear weights updatable and copies received weights out of the shared-memory bucket."""

    def __new__(cls, **kwargs):
        from vllm.model_executor.layers import utils as layer_utils

        layer_utils.dispatch_cpu_unquantized_gemm = _keep_plain_linear  # this process is a vLLM worker, nothing else
        return super().__new__(cls, **kwargs)

    def _update_weights(self, weights, peft_config, base_sync_done):
        # On the CPU a tensor "moved" to the device is still a view of the sender's buffer, which then cannot be closed.
        owned = [(name, tensor.clone()) for name, tensor in weights]
        super()._update_weights(owned, peft_config=peft_config, base_sync_done=base_sync_done)

    def _get_zmq_handle(self) -> str:
        return weight_socket(
            os.environ["SDAR_RAY_SESSION"], int(os.environ["VERL_REPLICA_RANK"]), int(self.local_rank or 0)
        )
