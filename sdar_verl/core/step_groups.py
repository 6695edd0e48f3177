"""Step-level advantages of GiGPO (arXiv 2505.10978): turns of a group that began in the same state are compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

NORMS = ("mean", "mean_std")
EPSILON = 1e-6


@dataclass(frozen=True)
class StepGroupsConfig:
    """Attributes:
    weight: ω of ``A = A_episode + ω·A_step``, at least 0; 0 leaves step-level advantages out.
    gamma: discount of the rewards that follow a turn, in [0, 1].
    norm: ``mean`` (default of verl-agent's function) or ``mean_std``.
    """

    weight: float = 0.0
    gamma: float = 0.95
    norm: str = "mean"

    def __post_init__(self) -> None:
        if not isinstance(self.weight, (int, float)) or not 0 <= self.weight < float("inf"):
            raise ValueError(f"weight must be a finite number >= 0, got {self.weight!r}")
        if not isinstance(self.gamma, (int, float)) or not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma must lie in [0, 1], got {self.gamma!r}")
        if self.norm not in NORMS:
            raise ValueError(f"unknown norm {self.norm!r}; known: {', '.join(NORMS)}")


def discounted_returns(rewards: Sequence[float], gamma: float) -> list[float]:
    """R_t = Σ_{k ≥ t} γ^{k−t}·r_k for the turns of one episode in order."""
    returns, later = [], 0.0
    for reward in reversed(rewards):
        later = reward + gamma * later
        returns.append(later)
    return returns[::-1]


def step_advantages(returns: torch.Tensor, states: Sequence[Hashable], norm: str = "mean") -> torch.Tensor:
    """R minus the mean R of the turns with the same state, shape ``(N,)``; 0 for a state that occurs once.

    Args:
        returns: ``(N,)``, of all turns of a step.
        states: what a turn began in, *with* its group: turns of different groups are never compared.
        norm: ``mean_std`` also divides by the state's standard deviation (unbiased) plus 1e-6.

    Raises:
        ValueError: as many states as returns are needed, or the norm is unknown.
    """
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}; known: {', '.join(NORMS)}")
    if returns.shape != (len(states),):
        raise ValueError(f"need one state for each return, got {len(states)} for {tuple(returns.shape)}")
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, state in enumerate(states):
        members[state].append(index)
    advantages = torch.zeros_like(returns)
    for indices in members.values():
        if len(indices) > 1:
            own = returns[indices]
            centred = own - own.mean()
            advantages[indices] = centred if norm == "mean" else centred / (own.std() + EPSILON)
    return advantages
