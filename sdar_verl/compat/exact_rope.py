"""Rotary frequencies in float32, as vLLM and a float32 model have them, in models that are kept in half precision."""

from __future__ import annotations

import torch

_SUFFIX = "inv_freq"


def restore_rope(model: torch.nn.Module) -> int:
    """Put exact frequencies into the rotary embeddings of `model`; returns how many tensors were rounded.

    verl 0.9.1 casts a whole model to ``fsdp_config.model_dtype``, buffers too. In bfloat16 the angle of a token at
    position 2,000 is then off by up to 2.3 radians (θ = 1e6), so that a reference in half precision would score with
    another model than the policy's first, and adapters on such a base would be trained on another than vLLM plays.
    """
    rounded = 0
    for module in model.modules():
        wrong = [
            name
            for name, buffer in module.named_buffers(recurse=False)
            if name.endswith(_SUFFIX) and buffer.dtype != torch.float32
        ]
        if wrong:
            exact = type(module)(config=module.config)  # its own constructor knows all kinds of scaling
            for name in wrong:
                module._buffers[name] = getattr(exact, name).to(module._buffers[name].device)
        rounded += len(wrong)
    return rounded
