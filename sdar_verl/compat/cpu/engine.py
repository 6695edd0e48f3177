"""verl's FSDP2 engine on the CPU: the stock class for this device, without pinned memory or a loop over tokens."""

from __future__ import annotations

from contextlib import contextmanager
from types import ModuleType

import torch


def log_probs_from_logits(logits: torch.Tensor, labels: torch.Tensor, **_: object) -> torch.Tensor:
    """Log-probabilities (nats) of `labels` ``(T,)`` under `logits` ``(T, V)``, for verl's function of this name."""
    return -torch.nn.functional.cross_entropy(logits, labels, reduction="none")


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

    @contextmanager
    def batched_log_probs():
        # Without FlashAttention's kernel verl takes the log-sum-exp of one token at a time, which is slow on a CPU.
        stock = transformer_impl.logprobs_from_logits
        transformer_impl.logprobs_from_logits = log_probs_from_logits
        try:
            yield
        finally:
            transformer_impl.logprobs_from_logits = stock

    class CpuFSDPEngine(transformer_impl.FSDPEngineWithLMHead):
        """Stock FSDP2 engine; differs in frozen models' offload policy and in the kernel for log-probabilities."""

        def _build_fsdp_module(self, module):
            with unpinned():
                return super()._build_fsdp_module(module)

        def prepare_model_outputs(self, *args, **kwargs):
            with batched_log_probs():
                return super().prepare_model_outputs(*args, **kwargs)

    EngineRegistry.register(model_type="language_model", backend=["fsdp2"], device="cpu")(CpuFSDPEngine)
