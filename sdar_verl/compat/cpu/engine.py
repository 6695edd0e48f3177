"""verl's FSDP2 engine on the CPU: the stock class for this device, without pinned memory and with work left out."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import torch

from sdar_verl.compat.cpu.short_rows import ShortRows, log_probs_from_logits, micro_batches


def load_critic(local_path: str, torch_dtype: torch.dtype, model_config: Any, trust_remote_code: bool) -> Any:
    """A model with one value a token, for verl's function of this name, which asks for FlashAttention."""
    from transformers import AutoModelForTokenClassification

    return AutoModelForTokenClassification.from_pretrained(
        local_path, dtype=torch_dtype, config=model_config, trust_remote_code=trust_remote_code
    )


def register_engine(transformer_impl: ModuleType) -> None:
    """Register FSDP2 engines for policies and critics on device ``cpu``; `transformer_impl` is verl's engine module."""
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

    class Unpinned:
        def _build_fsdp_module(self, module):
            with unpinned():
                return super()._build_fsdp_module(module)

    class CpuFSDPEngine(ShortRows, Unpinned, transformer_impl.FSDPEngineWithLMHead):
        """Stock FSDP2 engine; differs in frozen models' offload policy, in how rows become micro-batches and inputs,
        and in the kernel for log-probabilities.
        """

        def forward_backward_batch(self, *args, **kwargs):
            stock = transformer_impl.prepare_micro_batches
            transformer_impl.prepare_micro_batches = partial(micro_batches, stock)
            try:
                return super().forward_backward_batch(*args, **kwargs)
            finally:
                transformer_impl.prepare_micro_batches = stock

        def prepare_model_outputs(self, *args, **kwargs):
            with batched_log_probs():
                return super().prepare_model_outputs(*args, **kwargs)

    class CpuCriticEngine(Unpinned, transformer_impl.FSDPEngineWithValueHead):
        """Stock FSDP2 engine of a critic; differs in that its model attends without FlashAttention."""

        def _build_module(self):
            import verl.utils.model as models

            stock, models.load_valuehead_model = models.load_valuehead_model, load_critic
            try:
                return super()._build_module()
            finally:
                models.load_valuehead_model = stock

    EngineRegistry.register(model_type="language_model", backend=["fsdp2"], device="cpu")(CpuFSDPEngine)
    EngineRegistry.register(model_type="value_model", backend=["fsdp2"], device="cpu")(CpuCriticEngine)
