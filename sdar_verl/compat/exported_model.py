"""A model's folder for a server that starts from it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PretrainedConfig


def write_model(folder: Path, config: PretrainedConfig, weights: dict[str, torch.Tensor]) -> None:
    """Configuration and weights, under `folder` once both are whole; what lies there already is replaced.

    Args:
        weights: name to tensor on the host; no two share memory.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    config.save_pretrained(part)
    save_file(weights, part / "model.safetensors", metadata={"format": "pt"})
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)
