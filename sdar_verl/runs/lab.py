"""The lab on a CPU: generated games of its own and the settings that all of its runs share."""

from __future__ import annotations

import time
from pathlib import Path

from sdar_verl.lab import envs

TRAIN_SPLIT, VALID_SPLIT = "train", "valid_unseen"
_OWN_GAMES = 10_000  # added to the seed of games: none of them is one that the tiny model was fitted on


def make_games(folder: Path, train: int, panel: int, seed: int) -> str:
    """Generate `train` games, and `panel` on floor plans that no training game uses; kept where they are there already.

    Returns:
        A line that says so.
    """
    lab = envs.get("alfworld")
    began = time.monotonic()
    for split, number in ((TRAIN_SPLIT, train), (VALID_SPLIT, panel)):
        lab.worlds(folder, split, number, _OWN_GAMES + seed, lab.play.knobs)
    seconds = time.monotonic() - began
    return f"games: {train} to train on, {panel} on other floor plans to evaluate on ({seconds:.0f} s)"


def settings(model: Path, games: Path, panel: int, panel_seed: int) -> dict[str, object]:
    """Model, games and panel; to be used with ``platform=cpu`` and ``+lab=<preset>``."""
    return {
        "actor_rollout_ref.model.path": model,
        "env.alfworld.data_root": games,
        "env.train_split": TRAIN_SPLIT,
        "env.valid_split": VALID_SPLIT,
        "sdar.panel.size": panel,
        "sdar.panel.seed": panel_seed,
    }
