"""The lab on a CPU: generated games of its own and the settings that all of its runs share."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

from omegaconf import OmegaConf

from sdar_verl.lab import envs

_PRESETS = Path(__file__).parents[1] / "config" / "lab"
TRAIN_SPLIT = "train"
_OWN_GAMES = 10_000  # added to the seed of games: none of them is one that the tiny model was fitted on


def make_games(env: str, folder: Path, train: int, panel: int, seed: int) -> str:
    """Generate `train` games of `env`, and `panel` unseen ones to evaluate on; kept where they are there already.

    Returns:
        A line that says so.
    """
    began = time.monotonic()
    lab = envs.get(env)
    lab.make_games(folder, {TRAIN_SPLIT: train, lab.valid_split: panel}, _OWN_GAMES + seed)
    seconds = time.monotonic() - began
    return f"games: {train} to train on, {panel} unseen ones to evaluate on ({seconds:.0f} s)"


def preset(model: str, env: str) -> str:
    """The name under ``config/lab`` of the settings with which `model` plays `env`."""
    return model if env == "alfworld" else f"{model}_{env}"


def preset_hash(name: str) -> str:
    """SHA-256 over what the preset `name` sets, however its files say it."""
    own = OmegaConf.load(_PRESETS / f"{name}.yaml")
    parts = [OmegaConf.load(_PRESETS / f"{part}.yaml") for part in own.pop("defaults", []) if part != "_self_"]
    content = OmegaConf.to_container(OmegaConf.merge(*parts, own))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def settings(env: str, model: Path, games: Path, panel: int, panel_seed: int) -> dict[str, object]:
    """Model, games and panel; to be used with ``platform=cpu env=<env>`` and ``+lab=<preset>``."""
    lab = envs.get(env)
    own = {f"env.{env}.{key}": value for key, value in lab.game_settings(games).items()}
    return {
        "actor_rollout_ref.model.path": model,
        **own,
        "env.train_split": TRAIN_SPLIT,
        "env.valid_split": lab.valid_split,
        "sdar.panel.size": panel,
        "sdar.panel.seed": panel_seed,
    }
