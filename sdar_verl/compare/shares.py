"""Parts of one machine for runs side by side."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from sdar_verl.errors import ConfigError

_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Share:
    """What one run may use.

    Attributes:
        cores: None for all.
        environment: variables that name its accelerators; empty where there are none, or for all.
    """

    cores: tuple[int, ...] | None = None
    environment: dict[str, str] = field(default_factory=dict)


def shares(jobs: int) -> list[Share]:
    """The cores and GPUs that this process may use, in `jobs` parts of neighbours; one job is not restricted.

    Raises:
        ConfigError: there are fewer cores, or fewer GPUs but some, than jobs.
    """
    if jobs == 1:
        return [Share()]
    cores, gpus = sorted(os.sched_getaffinity(0)), _gpus()
    for name, own in (("cores", cores), ("GPUs", gpus)):
        if 0 < len(own) < jobs:
            raise ConfigError(f"--jobs {jobs}: there are only {len(own)} {name} to share; name at most as many jobs")
    return [
        Share(tuple(mine), {_VISIBLE: ",".join(own)} if gpus else {})
        for mine, own in zip(_parts(cores, jobs), _parts(gpus, jobs), strict=True)
    ]


def _parts(items: list, jobs: int) -> list[list]:
    return [items[len(items) * i // jobs : len(items) * (i + 1) // jobs] for i in range(jobs)]


def _gpus() -> list[str]:
    """As CUDA names them: what the variable lists, else all."""
    if (visible := os.environ.get(_VISIBLE)) is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
