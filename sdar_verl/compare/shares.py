"""Parts of one machine for runs side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping

from sdar_verl.compare.composed import ArmPlan
from sdar_verl.errors import ConfigError

Cores = tuple[int, ...]


def shares(jobs: int, plans: Mapping[str, ArmPlan]) -> list[Cores | None]:
    """The cores that this process may use, in `jobs` parts of neighbours; one job keeps to none.

    Raises:
        ConfigError: there are fewer cores than jobs, or an arm runs on GPUs: there two runs of one machine would take
            each other's weights, for verl's socket between trainer and vLLM has the same name in both.
    """
    if jobs == 1:
        return [None]
    if others := sorted({own.device for own in plans.values()} - {"cpu"}):
        raise ConfigError(
            f"--jobs {jobs} needs platform=cpu, but trainer.device is {others[0]}: verl's runs cannot share a machine "
            "with GPUs; make them one after the other, or in a container each and name their folders to the report"
        )
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < jobs:
        raise ConfigError(f"--jobs {jobs}: there are only {len(cores)} cores to share; name at most as many jobs")
    return [tuple(cores[len(cores) * i // jobs : len(cores) * (i + 1) // jobs]) for i in range(jobs)]
