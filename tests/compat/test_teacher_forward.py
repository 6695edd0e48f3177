"""Where in a packed micro-batch the sampled tokens are predicted, and what is compared there."""

import pytest
import torch
from verl.utils import tensordict_utils as tu

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
    """Stands in for verl's: logits are a table looked up by token, handed over packed."""

    def __init__(self, table):
        self.module = torch.nn.Embedding.from_pretrained(table)
        self.module.forward = lambda input_ids, use_cache: torch.nn.functional.embedding(input_ids, table)

    def prepare_model_inputs(self, micro_batch):
        return {"input_ids": micro_batch["input_ids"].values()}, {}

    def prepare_model_outputs(self, output, output_args, micro_batch, logits_processor_func):
        assert not self.module.training
        assert tu.get_non_tensor_data(data=micro_batch, key="distillation_only", default=False)
        logits_processor_func(student_logits=output.unsqueeze(0), data=micro_batch)


def micro_batch(masks):
    tensors = {
        "prompts": nested([[1, 2], [3]]),
        "teacher_prompts": nested([[5, 6, 7], [6, 4, 4, 5]]),
        "responses": nested([[2, 3, 1], [4, 0]]),
        "teacher_mask": nested(masks),
    }
    return tu.get_tensordict(tensors, {"temperature": 0.7, "use_remove_padding": False})


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


@pytest.mark.parametrize("mix", [0.2, 0.9])
def test_a_trust_region_mixes_the_logits(mix):
    generator = torch.Generator().manual_seed(0)
    student, frozen, policy = (torch.randn(8, 8, generator=generator) for _ in range(3))
    data = micro_batch([[1, 0, 1], [1, 1]])
    config = DistillationConfig(divergence="full", alpha=0.0, gate="none")
    teacher = TeacherForward(Engine(frozen.clone()), config, policy=Engine(policy), mix=mix)
    packed = student[torch.tensor([1, 2, 2, 3, 1, 3, 4, 0])]
    found = teacher.divergence(packed.unsqueeze(0), data)[0]
    mixed = (1 - mix) * frozen + mix * policy
    expected = distribution_divergence(student[[2, 3, 3, 4]], mixed[[7, 3, 5, 4]], 0.0)
    torch.testing.assert_close(found[[1, 3, 5, 6]], expected)
