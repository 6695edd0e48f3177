"""Secrets of a run's surroundings are in nothing that it writes or prints, and those in its settings are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from sdar_envs.alfworld.generate import generate_games
from sdar_envs.alfworld.knobs import Knobs

import sdar_verl.train  # noqa: F401 - registers the search path of verl's configuration
from sdar_verl.lab.model import build_model
from sdar_verl.lab.tokenizer import train_tokenizer
from sdar_verl.launch import _ray_settings
from sdar_verl.redaction import find_secrets

PROBE = Path(__file__).with_name("prepare_probe.py")
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAQQQQQQQQQQQQQQQQ",
    "AWS_SECRET_ACCESS_KEY": "wJalrSECRETaccessKEYofTheTest0123456789ab",
    "AWS_SESSION_TOKEN": "FwoGSESSIONtokenOfTheTest",
    "SDAR_ENV_TOKEN": "environment-token-of-the-test",
    "SDAR_SOME_PASSWORD": "password-of-the-test",
    "HF_TOKEN": "hf_hubTokenOfTheTest0123456789",
    "WANDB_API_KEY": "wandbKeyOfTheTest0123456789abcdef",
    "VLLM_API_KEY": "vllmKeyOfTheTest",
}
IN_FILE = "token-in-a-file-of-the-test"
REFUSED = "secretInTheSettingsOfTheTest"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was made ready, `sdar train --cfg job`, and all that both of them said."""
    root = tmp_path_factory.mktemp("secrets")
    knobs = Knobs(receptacles=(3, 5), objects=(3, 5))
    for split in ("train", "valid_seen"):
        generate_games(root / "games", split, 4, seed=1, knobs=knobs)
    tokenizer = train_tokenizer(["You see a drawer 1, a desk 1. Your task is to: put a mug in drawer."] * 30, 400)
    sizes = {"hidden": 64, "layers": 1, "heads": 2, "kv_heads": 1, "ffn": 64, "max_positions": 1024, "seed": 0}
    build_model(tokenizer, **sizes).save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    (root / "token").write_text(IN_FILE)
    overrides = [
        "platform=cpu",
        f"env.alfworld.data_root={root / 'games'}",
        "env.alfworld.thinking=false",
        f"env.service.token_file={root / 'token'}",
        "sdar.panel.size=4",
        "sdar.skills.store=alfworld_tiny",
        "sdar.teacher.max_prompt_length=2000",
        "data.train_batch_size=4",
        "data.max_prompt_length=560",
        "data.max_response_length=12",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        f"actor_rollout_ref.model.path={root / 'model'}",
        f"sdar.run_dir={root / 'run'}",
    ]
    cases = json.dumps({"run": overrides, "refused": [*overrides, f"+trainer.wandb_api_key={REFUSED}"]})
    (root / "cases.json").write_text(cases)
    variables = {**os.environ, **ENVIRONMENT, "VERL_PLATFORM": "cpu"}
    said = []
    for command in ([PROBE, root / "cases.json"], ["-m", "sdar_verl.train", "--cfg", "job", *overrides]):
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=variables, timeout=300)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout + done.stderr)
        if command[0] == PROBE:
            assert json.loads(done.stdout.splitlines()[-1])["run"] is None
    return root / "run", said


def test_nothing_that_is_written_or_printed_holds_a_secret(run):
    folder, said = run
    files = {path: path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file()}
    assert {"config.yaml", "manifest.json"} <= {path.name for path in files}
    texts = {**{str(path): text for path, text in files.items()}, "prepare": said[0], "--cfg job": said[1]}
    for where, text in texts.items():
        for name, secret in {**ENVIRONMENT, "token file": IN_FILE}.items():
            assert secret not in text, f"{name} in {where}"
    assert "token_file" in texts["--cfg job"], "the settings were printed"


def test_ray_is_passed_no_secret(run, tmp_path, monkeypatch):
    """verl prints Ray's settings, and Ray's pages show them."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with initialize_config_module("sdar_verl.config", version_base=None):
        config = compose("sdar", ["platform=cpu"])
    _ray_settings(config, tmp_path)
    shown = json.dumps(OmegaConf.to_container(config, resolve=True), default=str)
    assert "env_vars" in shown and not [secret for secret in ENVIRONMENT.values() if secret in shown]


@pytest.mark.parametrize(
    "settings, names",
    [
        ({"wandb": {"api_key": "abc"}}, ["wandb.api_key"]),
        ({"a": [{"token": "x"}, {"hf_token": "y"}]}, ["a[0].token", "a[1].hf_token"]),
        ({"url": "https://me:pw@host/x"}, ["url"]),
        ({"note": "hf_" + "a" * 20}, ["note"]),
        ({"x": {"aws_secret_access_key": "abc"}}, ["x.aws_secret_access_key"]),
        ({"url": "https://b/k?a=1&X-Amz-Signature=0a"}, ["url"]),
        ({"env": {"service": {"token_file": "/run/token"}}, "max_token_len": 5, "pad_token": "<pad>"}, []),
        ({"api_key": None, "token": "", "tokenizer": "x", "key": "difficulty", "reward_fn_key": "source"}, []),
    ],
)
def test_secrets_in_settings_are_found(settings, names):
    assert find_secrets(settings) == names


def test_a_secret_in_the_settings_stops_a_run(run):
    _, said = run
    assert "trainer.wandb_api_key: a secret does not belong" in said[0] and REFUSED not in said[0]
