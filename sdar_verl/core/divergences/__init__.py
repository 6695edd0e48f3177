"""Divergences: how teacher and student are compared on each token. One file per divergence."""

from sdar_verl.core.divergences.base import DIVERGENCES, Divergence
from sdar_verl.core.divergences.distribution import full, topk
from sdar_verl.core.divergences.k3 import k3
from sdar_verl.core.divergences.sampled_token import sampled_token

__all__ = ["DIVERGENCES", "Divergence", "full", "k3", "sampled_token", "topk"]
