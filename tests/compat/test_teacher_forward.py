"""Where in a packed micro-batch the sampled tokens are predicted."""

import torch

from sdar_verl.compat.teacher_forward import sampled_positions


def nested(rows):
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


def test_a_position_predicts_the_token_after_it():
    prompts = nested([[7, 8, 9], [5], [4, 4]])
    masks = nested([[1, 1], [1, 0, 1], [0]])  # an observation in the second row; the third only pads
    rows = [["p", "p", "p", "a", "b"], ["p", "c", "observed", "d"], ["p", "p", "none"]]
    packed = [token for row in rows for token in row]
    found = sampled_positions(prompts, masks)
    assert [packed[position + 1] for position in found.tolist()] == ["a", "b", "c", "d"]
