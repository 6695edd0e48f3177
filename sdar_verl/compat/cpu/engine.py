"""verl's FSDP2 engine on the CPU: the stock class, registered for the device, without pinned memory."""

from __future__ import annotations

from contextlib import contextmanager
from types import ModuleType


def register_engine(transformer_impl: ModuleType) -> None:
    """Register an FSDP2 language-model engine for device ``cpu``; `transformer_impl` is verl's engine module."""
    from verl.workers.engine.base import EngineRegistry

    stock_policy = transformer_impl.CPUOffloadPolicy

    @contextmanager
    def unpinned():
        # Pinned memory needs an accelerator; verl asks for it whenever a reference model is built.
        transformer_impl.CPUOffloadPolicy = lambda pin_memory=False: stock_policy(pin_memory=False)
        try:
            yield
        finally:
            transformer_impl.CPUOffloadPolicy = stock_policy

    class CpuFSDPEngine(transformer_impl.FSDPEngineWithLMHead):
        """Stock FSDP2 engine; only the offload policy of frozen models differs (no pinned memory)."""

        def _build_fsdp_module(self, module):
            with unpinned():
                return super()._build_fsdp_module(module)

    EngineRegistry.register(model_type="language_model", backend=["fsdp2"], device="cpu")(CpuFSDPEngine)
