"""Gates: how strongly the distillation term acts on each token. One file per gate."""

from sdar_verl.core.gates.base import GATES, Gate
from sdar_verl.core.gates.gap import gap_gate
from sdar_verl.core.gates.none import no_gate

__all__ = ["GATES", "Gate", "gap_gate", "no_gate"]
