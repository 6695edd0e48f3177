"""vLLM on the CPU as a rollout of its own name: verl's vLLM server with another worker extension."""

from __future__ import annotations

import os

import ray
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica
from verl.workers.rollout.vllm_rollout.vllm_rollout import ServerAdapter

from sdar_verl.compat.cpu.weight_socket import weight_socket
from sdar_verl.forks.starter import spawn_there


class CpuHttpServer(vLLMHttpServer):
    """The stock server; its vLLM workers load `CpuWorkerExtension`."""

    def _get_worker_extension_cls(self) -> str:
        return "sdar_verl.compat.cpu.worker_extension.CpuWorkerExtension"

    def _post_init(self, cuda_visible_devices: str) -> None:
        os.environ["SDAR_RAY_SESSION"] = ray.get_runtime_context().get_session_name()
        if self.config.enforce_eager:  # vLLM would compile its sampler all the same: seconds, and a C++ compiler
            os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        spawn_there()  # the engine's own process
        super()._post_init(cuda_visible_devices)

    def _preprocess_engine_kwargs(self, engine_kwargs: dict) -> None:
        super()._preprocess_engine_kwargs(engine_kwargs)
        if self.config.tensor_model_parallel_size * self.config.pipeline_model_parallel_size == 1:
            # The model in the engine's own process; needs VLLM_ENABLE_V1_MULTIPROCESSING=0 as well, see platform.py.
            engine_kwargs.setdefault("distributed_executor_backend", "uni")


class CpuReplica(vLLMReplica):
    """The stock replica with `CpuHttpServer`."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(CpuHttpServer)

    def _get_server_name_prefix(self) -> str:
        return "vllm_cpu_"


class CpuServerAdapter(ServerAdapter):
    """The stock sender of weights, over a socket whose name is unique on the machine.

    verl names it by Ray's job id, which is the same in every Ray cluster started by a run, so that two runs on one
    machine would take each other's weights.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        session = ray.get_runtime_context().get_session_name()
        self.zmq_handle = weight_socket(session, self.replica_rank, self.rollout_rank)
