"""Games, a tiny random model and real runs on them. Everything here is on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from real_run import RealRun
from sdar_envs.alfworld.format import AlfworldFormat
from sdar_envs.alfworld.generate import generate_games
from sdar_envs.alfworld.knobs import Knobs
from sdar_envs.base import EpisodeView

from sdar_verl.lab.model import build_model
from sdar_verl.lab.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def games(tmp_path_factory) -> Path:
    """Eight training games and six for validation, in small rooms."""
    root = tmp_path_factory.mktemp("games")
    knobs = Knobs(receptacles=(3, 5), objects=(3, 5))
    generate_games(root, "train", 8, seed=1, knobs=knobs)
    generate_games(root, "valid_unseen", 6, seed=1, knobs=knobs)
    return root


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A random Qwen2 of 0.1 M parameters, with embeddings so large that its tokens differ in probability."""
    room = "You are in the middle of a room. Looking quickly around you, you see a drawer 1, a desk 1.\n\n"
    task = "put a mug in drawer."
    view = EpisodeView(task, f"{room}Your task is to: {task}", ["go to drawer 1", "look"])
    texts = [AlfworldFormat(thinking=False).render(view), "<action>open drawer 1</action>"] * 40
    tokenizer = train_tokenizer(texts, 600)
    network = build_model(tokenizer, hidden=64, layers=2, heads=2, kv_heads=1, ffn=128, max_positions=2048, seed=0)
    with torch.no_grad():
        network.get_input_embeddings().weight.mul_(8)
    folder = tmp_path_factory.mktemp("model")
    tokenizer.save_pretrained(folder)
    network.save_pretrained(folder)
    return folder


@pytest.fixture
def train(games, model, tmp_path):
    """``train("name", {key: value})`` starts a run in that folder; nothing of it outlives the test."""
    runs = []

    def start(name: str, overrides: dict | None = None, temp: Path | None = None) -> RealRun:
        base = {"env.alfworld.data_root": games, "actor_rollout_ref.model.path": model}
        run = RealRun(tmp_path / name, {**base, **(overrides or {})}, tmp_path / f"{name}.log", temp)
        runs.append(run)
        return run

    yield start
    for run in runs:
        run.destroy()
