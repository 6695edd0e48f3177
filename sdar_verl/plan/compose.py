"""The configuration that a run would have: a recipe is executed as it stands, and Hydra prints instead of training."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from sdar_verl.plan.units import PlanError

_SHOW = ("--cfg", "job", "--resolve")
_TIMEOUT = 120


def compose(recipe: str | Path | None, overrides: Sequence[str]) -> dict[str, Any]:
    """The resolved configuration of ``bash RECIPE OVERRIDES``, or of ``sdar train OVERRIDES`` without a recipe.

    Raises:
        PlanError: the recipe is missing, or Hydra refuses an override; the message ends with Hydra's own words.
    """
    if recipe is None:
        command = [sys.executable, "-m", "sdar_verl.train", *overrides, *_SHOW]
    else:
        if not Path(recipe).is_file():
            raise PlanError(f"there is no recipe {recipe}; recipes are shell scripts such as recipes/alfworld/*.sh")
        command = ["bash", str(recipe), *overrides, *_SHOW]
    environment = os.environ | {"PYTHON": sys.executable, "HYDRA_FULL_ERROR": "0"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise PlanError(f"{recipe or 'sdar train'} did not print its configuration in {_TIMEOUT} s") from error
    if done.returncode:
        raise PlanError(f"the configuration does not compose: {_last_words(done.stderr or done.stdout)}")
    return _mapping(done.stdout, f"the output of {recipe or 'sdar train'} --cfg job")


def read_config(path: str | Path) -> dict[str, Any]:
    """A configuration that a run wrote (``<run>/config.yaml``), resolved.

    Raises:
        PlanError: the file is missing or is no run's configuration.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from sdar_verl import train  # noqa: F401  registers the resolver that the configuration uses

    try:
        plain = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise PlanError(f"cannot read the configuration {path}: {error}") from error
    if not isinstance(plain, dict):
        raise PlanError(f"{path} holds no configuration")
    return plain


def _mapping(text: str, where: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PlanError(f"{where} is no YAML: {error}") from error
    if not isinstance(content, dict) or "actor_rollout_ref" not in content:
        raise PlanError(f"{where} is no configuration of sdar_verl; does the script end in `-m sdar_verl.train`?")
    return content


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[-4:]) or "it said nothing"
