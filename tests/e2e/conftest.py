"""Games, a tiny random model and real runs on them. Everything here is on the CPU."""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from real_run import RealRun
from sdar_envs.alfworld.format import AlfworldFormat
from sdar_envs.alfworld.generate import generate_games
from sdar_envs.alfworld.knobs import Knobs
from sdar_envs.base import EpisodeView
from sdar_envs.search_qa.generate import generate as generate_world
from sdar_envs.search_qa.world.knobs import WorldKnobs
from sdar_envs.webshop.generate import generate_catalogue

from sdar_verl.lab.model import build_model
from sdar_verl.lab.tokenizer import train_tokenizer
from sdar_verl.skills import open_store
from sdar_verl.storage.place import Place

sys.path.insert(0, str(Path(__file__).parents[1] / "envs"))  # service_process.py


@pytest.fixture
def service_token(tmp_path) -> Path:
    """A file with the token of the services in these tests."""
    from service_process import TOKEN

    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


@pytest.fixture(scope="session")
def games(tmp_path_factory) -> Path:
    """Eight training games and six for validation, in small rooms."""
    root = tmp_path_factory.mktemp("games")
    knobs = Knobs(receptacles=(3, 5), objects=(3, 5))
    generate_games(root, "train", 8, seed=1, knobs=knobs)
    generate_games(root, "valid_unseen", 6, seed=1, knobs=knobs)
    return root


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory) -> dict:
    """A generated WebShop, as overrides of a run."""
    root = tmp_path_factory.mktemp("shop")
    generate_catalogue(root / "data", 120, 1)
    return {
        "env": "webshop",
        "env.valid_split": "eval",
        "env.webshop.data_root": root / "data",
        "env.webshop.cache_dir": root / "cache",
        "env.webshop.test_size": 20,
        "env.webshop.eval_size": 20,
        "env.webshop.max_steps": 3,
        "env.webshop.thinking": "false",
        "sdar.skills.store": "webshop",
    }


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> dict:
    """A generated Search-QA with its index, as overrides of a run."""
    root = tmp_path_factory.mktemp("world")
    generate_world(root, {"train": 24, "test": 12}, knobs=WorldKnobs(people=40))
    return {
        "env": "search_qa",
        "env.valid_split": "test",
        "env.search_qa.data_root": root,
        "env.search_qa.retriever.engine": "bm25s",
        "env.search_qa.retriever.index": root / "index",
        "env.search_qa.max_steps": 3,
        "env.search_qa.thinking": "false",
        "sdar.skills.store": "search_qa",
    }


@pytest.fixture(scope="session")
def reader(tmp_path_factory) -> dict:
    """A random model for longer prompts than ALFWorld's, as overrides of a run."""
    texts = [skill.text for name in ("webshop", "search_qa") for skill in open_store(name).all()]
    tokenizer = train_tokenizer(texts, 600)
    folder = tmp_path_factory.mktemp("reader")
    tokenizer.save_pretrained(folder)
    shape = {"hidden": 64, "layers": 1, "heads": 2, "kv_heads": 1, "ffn": 64, "max_positions": 8192}
    build_model(tokenizer, **shape, seed=0).save_pretrained(folder)
    return {
        "actor_rollout_ref.model.path": folder,
        "data.max_prompt_length": 3000,
        "sdar.teacher.max_prompt_length": 6000,
        "actor_rollout_ref.rollout.max_model_len": 8192,
    }


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
def place(moto_url, aws_account) -> Place:
    """An empty place in S3 that is this test's alone."""
    found = Place(f"runs-{uuid4().hex}", "alfworld", region="us-east-1", endpoint=moto_url)
    found.connect().create_bucket(Bucket=found.bucket)
    return found


@pytest.fixture
def train(games, model, tmp_path):
    """``train("name", {key: value})`` starts a run in that folder; nothing of it outlives the test."""
    runs = []

    def start(name: str, overrides: dict | None = None, **more) -> RealRun:
        base = {"env.alfworld.data_root": games, "actor_rollout_ref.model.path": model}
        run = RealRun(tmp_path / name, {**base, **(overrides or {})}, tmp_path / f"{name}.log", **more)
        runs.append(run)
        return run

    yield start
    for run in runs:
        run.destroy()
