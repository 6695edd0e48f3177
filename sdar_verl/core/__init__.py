"""The objective in plain torch: no trainer, no model library, so that every part can be checked by hand."""

from sdar_verl.core.advantages import ADVANTAGES
from sdar_verl.core.aggregation import aggregate
from sdar_verl.core.config import DistillationConfig
from sdar_verl.core.distillation import DistillationOutput, distillation_loss
from sdar_verl.core.divergences import DIVERGENCES
from sdar_verl.core.gates import GATES
from sdar_verl.core.metrics import GAP_BINS, GATE_BINS, Stat, flatten, merge, resolve
from sdar_verl.core.schedules import SCHEDULES, ScheduleConfig
from sdar_verl.core.step_groups import StepGroupsConfig, discounted_returns, step_advantages

__all__ = [
    "ADVANTAGES",
    "DIVERGENCES",
    "GAP_BINS",
    "GATES",
    "GATE_BINS",
    "SCHEDULES",
    "DistillationConfig",
    "DistillationOutput",
    "ScheduleConfig",
    "Stat",
    "StepGroupsConfig",
    "aggregate",
    "discounted_returns",
    "distillation_loss",
    "flatten",
    "merge",
    "resolve",
    "step_advantages",
]
