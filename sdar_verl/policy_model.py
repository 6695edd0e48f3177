"""The model that is trained: that it can be loaded, and fits its tokenizer and the lengths of the run."""

from __future__ import annotations

import math
from typing import Any

from sdar_verl import hub
from sdar_verl.errors import ConfigError


def check_policy_model(plain: dict[str, Any]) -> tuple[Any, Any]:
    """The model's configuration and the tokenizer, after checking that they belong together."""
    from transformers import AutoConfig, AutoTokenizer

    model = plain["actor_rollout_ref"]["model"]
    path = model["path"]
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=model["trust_remote_code"])
        tokenizer = AutoTokenizer.from_pretrained(
            model["tokenizer_path"] or path, trust_remote_code=model["trust_remote_code"]
        )
    except (OSError, ValueError) as error:
        raise hub.not_loaded(f"actor_rollout_ref.model.path={path!r}", error) from error
    if len(tokenizer) > config.vocab_size:
        raise ConfigError(
            f"the tokenizer has {len(tokenizer)} tokens but the model's vocabulary only {config.vocab_size}; "
            "they do not belong together"
        )
    if plain["trainer"]["device"] == "cpu" and len(tokenizer) != config.vocab_size:
        raise ConfigError(
            f"the model's vocabulary has {config.vocab_size} entries and the tokenizer {len(tokenizer)}: vLLM masks "
            "the rest and the trainer does not, so their log-probabilities would differ. Use a model whose "
            "vocab_size equals len(tokenizer)"
        )
    longest, wanted = (
        getattr(config, "max_position_embeddings", None),
        plain["actor_rollout_ref"]["rollout"]["max_model_len"],
    )
    if longest is not None and wanted is not None and wanted > longest:
        raise ConfigError(
            f"actor_rollout_ref.rollout.max_model_len={wanted}, but the model has {longest} positions; lower it"
        )
    bucket = plain["actor_rollout_ref"]["rollout"]["checkpoint_engine"]["update_weights_bucket_megabytes"]
    dtype = plain["actor_rollout_ref"]["actor"]["fsdp_config"]["model_dtype"]
    largest = config.vocab_size * getattr(config, "hidden_size", 0) * (4 if dtype in ("fp32", "float32") else 2) / 2**20
    if plain["trainer"]["device"] == "cpu" and largest > bucket:  # GPUs hand a large tensor over by itself
        raise ConfigError(
            f"the model's embedding has {largest:.0f} MiB, more than the {bucket} MiB in which weights are handed to "
            "the rollout; set actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes="
            f"{math.ceil(largest)} or more"
        )
    if not tokenizer.chat_template:
        raise ConfigError(f"the tokenizer of {path!r} has no chat template; use an instruct model")
    return config, tokenizer
