"""A model that is kept in half precision turns its positions by exact angles all the same."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from sdar_verl.compat.exact_rope import restore_rope

SIZES = {
    "vocab_size": 50,
    "hidden_size": 256,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 128,
    "max_position_embeddings": 4096,
}
KINDS = {
    "plain": Qwen3Config(**SIZES, rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
    "scaled": LlamaConfig(
        **SIZES,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 1024,
        },
    ),
}


def angles(model):
    """Cosines and sines at some late positions, ``(2, 3, 128)``."""
    positions = torch.tensor([[500, 1000, 2000]])
    return torch.cat(model.model.rotary_emb(torch.zeros(1, dtype=torch.float32), positions))


@pytest.mark.parametrize("kind", KINDS)
def test_rounded_frequencies_are_restored(kind):
    model = AutoModelForCausalLM.from_config(KINDS[kind], dtype=torch.float32)
    exact = angles(model)
    assert restore_rope(model) == 0
    model.to(torch.bfloat16)  # as verl does to a model of this type
    assert (angles(model) - exact).abs().max() > 0.5, "transformers keeps them exact by now; remove the restoring"
    assert restore_rope(model) == 2
    assert torch.equal(angles(model), exact)
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert not [name for name in model.state_dict() if "inv_freq" in name], "they stay out of checkpoints"
