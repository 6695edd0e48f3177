"""The critic of PPO (``algorithm.adv_estimator=gae``): a second model that is trained, in the policy's processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdar_verl.plan import models
from sdar_verl.plan.engine import Engine, engine_values
from sdar_verl.plan.models import ModelShape

DEFAULT_TOKENS = 32768  # of verl's CriticConfig.ppo_infer_max_token_len_per_gpu; a test holds the two together


def wants_critic(config: Mapping[str, Any]) -> bool:
    """verl's own rule: ``critic.enable`` if it is set, else the estimator ``gae``."""
    enabled = config["critic"].get("enable")
    return config["algorithm"]["adv_estimator"] == "gae" if enabled is None else bool(enabled)


def critic_from_config(
    config: Mapping[str, Any], policy: ModelShape, gpus: int, file: Path | None = None
) -> Engine | None:
    """The critic's engine, or None where there is none; `file`: ``config.json`` of a model that is not the policy's."""
    if not wants_critic(config):
        return None
    part, parts, trainer = config["critic"], config["actor_rollout_ref"], config["trainer"]
    own = part["model"]["path"]
    base = policy if own == parts["model"]["path"] else models.load(own, file, flag="--critic-config")
    row = parts["rollout"]["prompt_length"] + parts["rollout"]["response_length"]
    # verl 0.9.1 cuts all of the critic's micro-batches by this key, whatever critic.use_dynamic_bsz says
    tokens = max(part.get("ppo_infer_max_token_len_per_gpu") or DEFAULT_TOKENS, row)
    return Engine(
        model=base.with_value_head(),
        gpus=gpus,
        nodes=trainer["nnodes"],
        update_tokens=tokens,
        score_tokens=tokens,
        mini_rows=part["ppo_mini_batch_size"] * parts["rollout"]["n"],
        **engine_values(part, part["fsdp"], part["model"], gpus, "critic"),
    )
