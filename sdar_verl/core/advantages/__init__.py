"""Advantages: the teacher in the policy gradient's weight instead of in a loss of its own. One file per part."""

from sdar_verl.core.advantages.base import ADVANTAGES, Advantage
from sdar_verl.core.advantages.evidence import evidence
from sdar_verl.core.advantages.reverse_kl import reverse_kl

__all__ = ["ADVANTAGES", "Advantage", "evidence", "reverse_kl"]
