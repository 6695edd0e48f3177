"""Where in a packed micro-batch the sampled tokens are predicted, and what is compared there."""

from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from verl.utils import tensordict_utils as tu
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from sdar_verl.compat.teacher_forward import TeacherForward, sampled_positions
from sdar_verl.core import DistillationConfig
from sdar_verl.core.distributions import distribution_divergence
from sdar_verl.errors import SdarError


def nested(rows):
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


def test_a_position_predicts_the_token_after_it():
    prompts = nested([[7, 8, 9], [5], [4, 4]])
    masks = nested([[1, 1], [1, 0, 1], [0]])  # an observation in the second row; the third only pads
    rows = [["p", "p", "p", "a", "b"], ["p", "c", "observed", "d"], ["p", "p", "none"]]
    packed = [token for row in rows for token in row]
    found = sampled_positions(prompts, masks)
    assert [packed[position + 1] for position in found.tolist()] == ["a", "b", "c", "d"]


class Engine:
    """Stands in for verl's: logits are a table looked up by token, packed."""

    def __init__(self, table):
        self.module = torch.nn.Embedding.from_pretrained(table)
        self.module.forward = lambda input_ids, use_cache, logits_to_keep: SimpleNamespace(
            logits=torch.nn.functional.embedding(input_ids[:, logits_to_keep], table)
        )

    def prepare_model_inputs(self, micro_batch):
        assert not micro_batch["input_ids"].requires_grad
        return {"input_ids": micro_batch["input_ids"].values().unsqueeze(0)}, {}


def micro_batch(masks):
    tensors = {
        "prompts": nested([[1, 2], [3]]),
        "teacher_prompts": nested([[5, 6, 7], [6, 4, 4, 5]]),
        "responses": nested([[2, 3, 1], [4, 0]]),
        "teacher_mask": nested(masks),
    }
    return tu.get_tensordict(tensors, {"temperature": 1.0, "use_remove_padding": False})


@pytest.mark.parametrize("masks", [[[1, 0, 1], [1, 1]], [[0, 0, 0], [0, 0]]], ids=["sampled", "padding alone"])
def test_both_are_compared_before_the_same_sampled_tokens(masks):
    generator = torch.Generator().manual_seed(0)
    student_table, teacher_table = (torch.randn(8, 8, generator=generator) for _ in range(2))
    data = micro_batch(masks)
    engine = Engine(teacher_table)
    engine.module.train()
    packed = student_table[torch.tensor([1, 2, 2, 3, 1, 3, 4, 0])].requires_grad_()
    teacher = TeacherForward(engine, DistillationConfig(divergence="full", alpha=0.5))
    found = teacher.divergence(packed.unsqueeze(0), data)
    assert engine.module.training and found.shape == (1, 8)
    # the token before each sampled one: the last of the prompt, then the answer's own
    student_at, teacher_at, places = [2, 3, 3, 4], [7, 3, 5, 4], [1, 3, 5, 6]
    expected = torch.zeros(8)
    if any(masks[0]):
        expected[places] = distribution_divergence(student_table[student_at], teacher_table[teacher_at], 0.5)
    torch.testing.assert_close(found[0].detach(), expected)
    found.sum().backward()
    assert torch.isfinite(packed.grad).all()
    touched = (packed.grad != 0).any(dim=-1).nonzero().squeeze(-1).tolist()
    assert touched == (places if any(masks[0]) else [])


def test_a_batch_without_privileged_prompts_is_refused():
    data = micro_batch([[1, 1, 1], [1, 1]])
    del data["teacher_prompts"]
    teacher = TeacherForward(Engine(torch.zeros(8, 8)), DistillationConfig(divergence="full"))
    with pytest.raises(SdarError, match="no teacher_prompts"):
        teacher.divergence(torch.zeros(1, 8, 8), data)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mix", [0.02, 0.9])
def test_a_trust_region_mixes_the_logits(mix, dtype):
    """A small share of half-precision logits is not rounded away."""
    generator = torch.Generator().manual_seed(0)
    student, frozen = (torch.randn(8, 8, generator=generator) for _ in range(2))
    frozen = (20 * frozen).to(dtype)
    policy = frozen + torch.randn(8, 8, generator=generator).to(dtype)
    data = micro_batch([[1, 0, 1], [1, 1]])
    config = DistillationConfig(divergence="full", alpha=0.0, gate="none")
    teacher = TeacherForward(Engine(frozen.clone()), config, policy=Engine(policy), mix=mix)
    packed = student[torch.tensor([1, 2, 2, 3, 1, 3, 4, 0])]
    found = teacher.divergence(packed.unsqueeze(0), data)[0]
    mixed = (1 - mix) * frozen.float() + mix * policy.float()
    expected = distribution_divergence(student[[2, 3, 3, 4]], mixed[[7, 3, 5, 4]], 0.0)
    torch.testing.assert_close(found[[1, 3, 5, 6]], expected)


class ModelEngine:
    """verl's own inputs, packed or padded, for a small model; remembers how many logits that formed."""

    pad_to_length = 0
    use_ulysses_sp = False
    prepare_model_inputs = FSDPEngineWithLMHead.prepare_model_inputs
    _get_packed_pad_size = FSDPEngineWithLMHead._get_packed_pad_size

    def __init__(self, module):
        self.module, self.rows = module, []
        module.lm_head.register_forward_pre_hook(lambda _, args: self.rows.append(args[0].shape[:2].numel()))


@pytest.mark.parametrize("temperature", [1.0, torch.tensor([0.5, 2.0])], ids=["one", "each its own"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_logits_are_formed_where_they_are_needed_alone(packed, temperature):
    """The same as each row by itself, whatever stands beside it and however verl lays the rows out."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = Qwen2Config(vocab_size=8, intermediate_size=16, **shape)
    model = Qwen2ForCausalLM(config).double().eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(50)
    engine = ModelEngine(model)
    data = micro_batch([[1, 0, 1], [1, 1]])
    if isinstance(temperature, torch.Tensor):
        data["temperature"] = temperature
    tu.assign_non_tensor(data, use_remove_padding=packed)
    found = TeacherForward(engine, DistillationConfig(divergence="full"))._teacher_logits(data)
    assert engine.rows == [4 if packed else 2 * 3]  # padded: the columns that any row needs, in both rows
    expected = []
    for row, (prompt, answer, at) in enumerate([([5, 6, 7], [2, 3, 1], [2, 4]), ([6, 4, 4, 5], [4, 0], [3, 4])]):
        logits = model(torch.tensor([prompt + answer])).logits[0, at]
        expected.append(logits / (1.0 if isinstance(temperature, float) else temperature[row]))
    torch.testing.assert_close(found, torch.cat(expected))
    assert expected[0].std() > 0.1, "the logits are all alike: this test could not fail"
