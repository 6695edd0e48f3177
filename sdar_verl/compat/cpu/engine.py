"""verl's FSDP2 engine on the CPU: the stock class for this device, without pinned memory and with work left out."""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any

import torch

from sdar_verl.compat.cpu.short_rows import ShortRows, log_probs_from_logits, micro_batches
from sdar_verl.compat.replaced import replaced


def load_critic(local_path: str, torch_dtype: torch.dtype, model_config: Any, trust_remote_code: bool) -> Any:
    """A model with one value a token, for verl's function of this name, which asks for FlashAttention."""
    from transformers import AutoModelForTokenClassification

    return AutoModelForTokenClassification.from_pretrained(
        local_path, dtype=torch_dtype, config=model_config, trust_remote_code=trust_remote_code
    )


def register_engine(transformer_impl: ModuleType) -> None:
    """Register FSDP2 engines for policies and critics on device ``cpu``; `transformer_impl` is verl's engine module."""
    from verl.workers.engine.base import EngineRegistry

    policy = transformer_impl.CPUOffloadPolicy

    class Unpinned:
        def _build_fsdp_module(self, module):
            # Pinned memory needs an accelerator; verl asks for it whenever a reference model is built.
            with replaced(transformer_impl, "CPUOffloadPolicy", lambda pin_memory=False: policy(pin_memory=False)):
                return super()._build_fsdp_module(module)

    class CpuFSDPEngine(ShortRows, Unpinned, transformer_impl.FSDPEngineWithLMHead):
        """Stock FSDP2 engine; differs in frozen models' offload policy, in how rows become micro-batches and inputs,
        and in the kernel for log-probabilities.
        """

        def forward_backward_batch(self, *args, **kwargs):
            short = partial(micro_batches, transformer_impl.prepare_micro_batches)
            with replaced(transformer_impl, "prepare_micro_batches", short):
                return super().forward_backward_batch(*args, **kwargs)

        def prepare_model_outputs(self, *args, **kwargs):
            # Without FlashAttention's kernel verl takes the log-sum-exp of one token at a time, which is slow on a CPU.
            with replaced(transformer_impl, "logprobs_from_logits", log_probs_from_logits):
                return super().prepare_model_outputs(*args, **kwargs)

    class CpuCriticEngine(Unpinned, transformer_impl.FSDPEngineWithValueHead):
        """Stock FSDP2 engine of a critic; differs in that its model attends without FlashAttention."""

        def _build_module(self):
            import verl.utils.model as models

            with replaced(models, "load_valuehead_model", load_critic):
                return super()._build_module()

    EngineRegistry.register(model_type="language_model", backend=["fsdp2"], device="cpu")(CpuFSDPEngine)
    EngineRegistry.register(model_type="value_model", backend=["fsdp2"], device="cpu")(CpuCriticEngine)
