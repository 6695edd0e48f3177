"""``lab.json``: what a fitted model folder was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdar_verl.lab import envs
from sdar_verl.lab.config import LabConfig
from sdar_verl.lab.prompts import messages
from sdar_verl.skills import open_store
from sdar_verl.teacher.context import HEADING

RECORD = "lab.json"
_FIRST = "alfworld"  # the environment of records that name none


def read_record(folder: Path) -> dict[str, Any] | None:
    """What `fit` wrote about the model in `folder`; None where there is no such file."""
    file = folder / RECORD
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def weights_hash(folder: Path) -> str:
    """SHA-256 (hex) of the weights file of a model folder."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def config_of(record: Mapping[str, Any]) -> LabConfig:
    """The configuration that a model folder's record holds."""
    kind = type(envs.get(record.get("env", _FIRST)).config)
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in record["config"].items()})


def fingerprint(config: LabConfig) -> str:
    """SHA-256 (hex) over everything the fitted model depends on but the libraries and the processor.

    That is the configuration, the skills, and the prompts as they are worded: a changed template or skill makes the
    shipped weights stale, and this shows it.
    """
    lab = envs.get(config.env_name)
    prompt_format = lab.make_format(config)
    inputs = {
        "version": lab.version,
        "config": asdict(config),
        "skills": open_store(config.skills).content_hash,
        "heading": HEADING,
        "prompts": [messages(prompt_format, view)[0]["content"] for view in lab.sample_views()],
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
