"""The moving average of weights: direction, ends, and what is refused."""

import pytest
import torch

from sdar_verl.core.moving_average import update_moving_average


def weights(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(3, 2, generator=generator).to(dtype) for name in ("a", "b")}


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5, 1.0])
def test_it_moves_towards_the_student_by_the_rate(rate):
    teacher, before, student = weights(0), weights(0), weights(1)
    update_moving_average(teacher, student.items(), rate)
    for name, value in teacher.items():
        torch.testing.assert_close(value, (1 - rate) * before[name] + rate * student[name])
    if rate in (0.0, 1.0):
        assert all(torch.equal(teacher[name], (student if rate else before)[name]) for name in teacher)


def test_many_small_steps_arrive_and_a_student_in_half_precision_is_fine():
    teacher, student = weights(0), weights(1, torch.bfloat16)
    for _ in range(400):
        update_moving_average(teacher, student.items(), 0.05)
    for name, value in teacher.items():
        torch.testing.assert_close(value, student[name].float(), atol=1e-5, rtol=1e-5)


def test_what_does_not_fit_is_refused():
    student = weights(1)
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 1\], got 1.5"):
        update_moving_average(weights(0), student.items(), 1.5)
    with pytest.raises(ValueError, match="float32 weights, a is torch.bfloat16"):
        update_moving_average(weights(0, torch.bfloat16), student.items(), 0.5)
    with pytest.raises(ValueError, match="not sharded alike: a "):
        update_moving_average({**weights(0), "a": torch.zeros(2, 2)}, student.items(), 0.5)
    with pytest.raises(ValueError, match="the student has no c"):
        update_moving_average({**weights(0), "c": torch.zeros(1)}, student.items(), 0.5)
    with pytest.raises(ValueError, match="no such tensor"):
        update_moving_average({}, student.items(), 0.5)
