"""Sizes from config.json alone are those of the real models: counted by transformers and PEFT on the meta device."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sdar_verl.plan import models
from sdar_verl.plan.units import PlanError

# parameters (B, three digits), bytes of keys and values a token, trainable M of LoRA rank 32
GOLDEN = {
    "Qwen/Qwen2.5-1.5B-Instruct": (1.544, 28_672, 36.9),
    "Qwen/Qwen2.5-3B-Instruct": (3.086, 36_864, 59.9),
    "Qwen/Qwen2.5-7B-Instruct": (7.616, 57_344, 80.7),
    "Qwen/Qwen3-1.7B": (1.721, 114_688, 34.9),
    "Qwen/Qwen3-4B": (4.022, 147_456, 66.1),
    "Qwen/Qwen3-8B": (8.191, 147_456, 87.3),
}
TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 64}  # fmt: skip
EXPERTS = {"moe_intermediate_size": 24, "num_experts": 6, "num_experts_per_tok": 2}
VARIANTS = {
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3 with its own head size": {"model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": False},
    "qwen3 with bias": {"model_type": "qwen3", "head_dim": 8, "attention_bias": True},
    "llama": {"model_type": "llama", "tie_word_embeddings": True},
    "llama with biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "mistral": {"model_type": "mistral"},
    "mixtral": {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"model_type": "qwen3_moe", "head_dim": 8, **EXPERTS},
    "qwen3_moe, some layers dense": {
        "model_type": "qwen3_moe", "head_dim": 8, "decoder_sparse_step": 2, "mlp_only_layers": [3], **EXPERTS},
    "qwen2_moe": {"model_type": "qwen2_moe", "shared_expert_intermediate_size": 40, **EXPERTS},
}  # fmt: skip


def meta_model(config):
    fields = dict(config)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields))


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", GOLDEN)
def test_the_reference_table(name):
    params, kv, lora = GOLDEN[name]
    model = models.load(name)
    assert round(model.params / 1e9, 3) == params
    assert model.kv_bytes_per_token() == kv
    assert round(model.lora_params(32) / 1e6, 1) == lora


@pytest.mark.parametrize("name", models.known_models())
def test_shipped_sizes_count_like_the_real_architecture(name):
    assert models.load(name).params == count(meta_model(models.known_models()[name]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_family_counts_like_transformers(variant):
    config = TINY | VARIANTS[variant]
    real, shape = meta_model(config), models.from_config(config)
    assert shape.params == count(real)
    assert shape.largest_block == max(count(layer) for layer in real.model.layers)


@pytest.mark.parametrize("variant", ["qwen3_moe", "qwen3_moe, some layers dense", "qwen2_moe", "mixtral"])
def test_active_parameters_leave_out_the_experts_that_a_token_does_not_pass(variant):
    config = TINY | VARIANTS[variant]
    real, shape = meta_model(config), models.from_config(config)
    experts = sum(p.numel() for name, p in real.named_parameters() if ".experts." in name)
    idle = 1 - 2 / (config.get("num_experts") or config["num_local_experts"])
    assert experts > 0
    assert shape.active == shape.params - round(experts * idle)


@pytest.mark.parametrize(
    "variant", ["qwen2", "qwen3 with its own head size", "llama", "qwen3_moe", "qwen2_moe", "mixtral"]
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # PEFT adapts experts in two passes and wonders about itself
def test_adapters_count_like_peft(variant):
    from peft import LoraConfig, get_peft_model

    config = TINY | VARIANTS[variant]
    adapted = get_peft_model(meta_model(config), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    real = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert models.from_config(config).lora_params(4) == real


def test_named_layers_can_be_adapted_alone():
    shape = models.load("Qwen/Qwen2.5-1.5B-Instruct")
    assert shape.lora_params(8, ["q_proj"]) == 8 * 28 * (1536 + 1536)
    with pytest.raises(PlanError, match="w_proj.*known: .*q_proj"):
        shape.lora_params(8, ["w_proj"])


def test_kept_state_is_what_torch_allocates():
    """Weights, gradients and AdamW's moments of a small model in float32: 16 bytes a parameter, by real tensors."""
    config = TINY | VARIANTS["qwen2"]
    fields = dict(config)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields))
    optimizer = torch.optim.AdamW(model.parameters())
    ids = torch.arange(8)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    moments = [t for state in optimizer.state.values() for name, t in state.items() if name != "step"]

    def size(tensors):
        return sum(t.numel() * t.element_size() for t in tensors)

    from plan_jobs import plain_job

    from sdar_verl.plan import host, memory

    job = plain_job(models.from_config(config), gpus=1)
    state = memory.estimate(job, 80e9).phases["update"]
    assert state["actor weights"] == size(model.parameters())
    assert state["gradients"] == size(p.grad for p in model.parameters())
    assert state["optimizer"] == size(moments)
    assert host.estimate(job, 0).checkpoint == size(model.parameters()) + size(moments)


def test_a_folder_a_file_and_a_name_load_the_same(tmp_path):
    config = models.known_models()["Qwen/Qwen3-4B"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    wanted = models.load("Qwen/Qwen3-4B")
    for path in (tmp_path, tmp_path / "config.json"):
        assert models.load(path).params == wanted.params
    assert models.load("somebody/model", tmp_path).name == "somebody/model"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model_type": "mamba"}', "'mamba' is not known.*qwen2"),
        ('{"model_type": "qwen2", "hidden_size": 8}', "no 'num_hidden_layers'"),
        ("[]", "no JSON object"),
        ("{", "is no JSON"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(PlanError, match=message):
        models.load(tmp_path)


def test_an_unknown_model_names_the_way_out(tmp_path):
    with pytest.raises(PlanError, match="--model-config.*Qwen/Qwen2.5-7B-Instruct"):
        models.load("somebody/unknown")
    with pytest.raises(PlanError, match="there is no"):
        models.load("Qwen/Qwen3-4B", tmp_path / "missing.json")
