"""Advantages of an episode's outcome on rows of turns, for estimators that verl knows on whole episodes alone."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.trainer.ppo.v1 import trainer_base

from sdar_verl.compat.replaced import replaced

# One number for a whole episode, from the rewards of its group. verl hands these every row, so that an episode of many
# turns would count as many samples; for grpo alone it takes each episode's last row.
BY_EPISODE = ("rloo", "rloo_vectorized", "grpo_vectorized")
# Those that compare an episode with its group: of one that is alone verl takes the reward itself for the advantage.
BY_GROUP = ("grpo", *BY_EPISODE, "gpg", "opo", "reinforce_plus_plus_baseline")


def episode_advantages(data: Any, batch_keys: list[str], adv_estimator: str, **options: Any) -> Any:
    """What verl's estimator gives for the last row of each episode, on every sampled token of all its rows.

    Args:
        data: verl's ``DataProto`` of a step; gains ``advantages`` and ``returns``, ``(B, T)``.
        batch_keys: ``{uid}_{session}_{turn}`` of each row.
        adv_estimator: one of `BY_EPISODE`.
        options: as verl's ``compute_advantage`` takes them.
    """
    last: dict[str, tuple[int, int]] = {}
    for number, key in enumerate(batch_keys):
        session, _, turn = key.rpartition("_")
        last[session] = max(last.get(session, (-1, -1)), (int(turn), number))
    sessions = {session: place for place, session in enumerate(last)}
    found = compute_advantage(
        data.select_idxs([number for _, number in last.values()]), adv_estimator=adv_estimator, **options
    ).batch
    mask = found["response_mask"]
    of_episode = (found["advantages"] * mask).sum(-1) / mask.sum(-1).clamp(min=1)  # the same on each of its tokens
    places = torch.tensor([sessions[key.rpartition("_")[0]] for key in batch_keys])
    data.batch["advantages"] = of_episode[places].unsqueeze(-1) * data.batch["response_mask"]
    data.batch["returns"] = data.batch["advantages"]
    return data


def _alone(data: Any, batch_keys: list[str]) -> torch.Tensor:
    """Which rows are of an episode without a sibling in the batch, ``(B,)``."""
    sampled = data.batch["response_mask"].any(-1).tolist()
    groups: dict[str, set[str]] = {}
    for key, real in zip(batch_keys, sampled, strict=True):
        uid, session, _ = key.rsplit("_", 2)
        groups.setdefault(uid, set()).update([session] if real else [])
    return torch.tensor([len(groups[key.rsplit("_", 2)[0]]) == 1 for key in batch_keys])


def by_episode() -> AbstractContextManager[None]:
    """Inside it verl's trainer has `episode_advantages` for the estimators in `BY_EPISODE`.

    And for those in `BY_GROUP` an episode whose siblings all were lost teaches nothing.
    """
    stock = trainer_base.compute_advantage_for_multi_trajectories

    def compute(data: Any, batch_keys: list[str], adv_estimator: Any, **options: Any) -> Any:
        name = str(getattr(adv_estimator, "value", adv_estimator))
        chosen = episode_advantages if name in BY_EPISODE else stock
        data = chosen(data, batch_keys=batch_keys, adv_estimator=adv_estimator, **options)
        if name in BY_GROUP and options.get("num_repeat", 1) > 1:
            data.batch["advantages"][_alone(data, batch_keys)] = 0.0
        return data

    return replaced(trainer_base, "compute_advantage_for_multi_trajectories", compute)
