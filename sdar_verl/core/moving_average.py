"""An exponential moving average of weights, shard by shard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch


@torch.no_grad()
def update_moving_average(
    teacher: Mapping[str, torch.Tensor], student: Iterable[tuple[str, torch.Tensor]], rate: float
) -> None:
    """θ_T ← (1 − rate)·θ_T + rate·θ for every tensor, in place; rate 1 copies, 0 changes nothing.

    Args:
        teacher: local shards by name. float32: at a rate of 0.05 a step is lost in the 8 bits of bfloat16.
        student: names and local shards; any device and dtype.
        rate: in [0, 1].

    Raises:
        ValueError: a rate out of range, other names, other shapes, or a teacher that is not float32.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"the update rate must lie in [0, 1], got {rate!r}")
    seen = set()
    for name, source in student:
        target = teacher.get(name)
        if target is None or target.shape != source.shape:
            there = "no such tensor" if target is None else f"shape {tuple(target.shape)}"
            raise ValueError(f"teacher and student are not sharded alike: {name} {tuple(source.shape)}, {there}")
        if target.dtype != torch.float32:
            raise ValueError(f"a moving average needs float32 weights, {name} is {target.dtype}")
        target.lerp_(source.to(target), rate)
        seen.add(name)
    missing = sorted(set(teacher) - seen)
    if missing:
        raise ValueError(f"teacher and student are not the same model: the student has no {', '.join(missing[:3])}")
