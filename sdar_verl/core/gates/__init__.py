"""Gates: how strongly the distillation term acts on each token. One file per gate."""

from sdar_verl.core.gates.base import GATES, Gate
from sdar_verl.core.gates.entropy import entropy_gate
from sdar_verl.core.gates.gap import gap_gate
from sdar_verl.core.gates.hard import hard_gate
from sdar_verl.core.gates.none import no_gate
from sdar_verl.core.gates.soft_or import soft_or_gate
from sdar_verl.core.gates.weights import BASELINES, gate_weights, mean_gate

__all__ = [
    "BASELINES",
    "GATES",
    "Gate",
    "entropy_gate",
    "gap_gate",
    "gate_weights",
    "hard_gate",
    "mean_gate",
    "no_gate",
    "soft_or_gate",
]
