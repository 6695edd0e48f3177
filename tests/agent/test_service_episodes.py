"""The runtime of an agent-loop process playing ALFWorld at real services: the same episodes as in worker processes."""

from __future__ import annotations

import asyncio
import copy
import json
import random
import sys
from pathlib import Path

import pytest
from sdar_envs import registry
from sdar_envs.alfworld.generate import generate_games
from sdar_envs.alfworld.knobs import Knobs

sys.path[:0] = [str(Path(__file__).parents[1] / "envs"), str(Path(__file__).parents[1])]
from service_process import TOKEN, ServiceProcess  # noqa: E402
from test_settings import CONFIG  # noqa: E402

from sdar_verl.agent.episode import EpisodeId, Limits  # noqa: E402
from sdar_verl.agent.rows import Generation  # noqa: E402
from sdar_verl.agent.runtime import EpisodeRuntime  # noqa: E402
from sdar_verl.errors import ConfigError  # noqa: E402
from sdar_verl.lab.tokenizer import train_tokenizer  # noqa: E402
from sdar_verl.rehearsal import rehearse  # noqa: E402
from sdar_verl.settings import Settings  # noqa: E402


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("games")
    knobs = Knobs(receptacles=(3, 5), objects=(3, 5))
    generate_games(folder, "train", 6, seed=1, knobs=knobs)
    generate_games(folder, "valid_unseen", 3, seed=2, knobs=knobs)
    return folder


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["Your task is to: put a mug in drawer. go to desk 1"] * 20, 330)


def settings(root, run_dir, *endpoints) -> Settings:
    """Plain RL on small games of twelve steps, without skills."""
    config = copy.deepcopy(CONFIG)
    config["sdar"] |= {"method": "grpo", "run_dir": str(run_dir), "distillation": {"enabled": False}}
    config["env"] |= {
        "valid_split": "valid_unseen",
        "pool": {"workers": 1, "envs_per_worker": 4, "step_timeout": 60, "reset_timeout": 60, "episode_timeout": 600},
        "alfworld": {"max_steps": 12, "thinking": False, "data_root": str(root)},
    }
    config["env"]["service"] |= {"endpoints": list(endpoints), "reconnect_timeout": 1.0}
    return Settings.from_config(config)


def serve(root, *arguments):
    return ServiceProcess(
        "--workers", "1", "--set", f"data_root={root}", "--set", "max_steps=12", *arguments, env="alfworld", token=TOKEN
    )  # fmt: skip


def play(settings, tokenizer, before_answer=lambda number: None):
    """Two episodes of every task, side by side: one follows the walkthrough, one plays admissible actions at random."""
    tasks = registry.get("alfworld").tasks(settings.env.config, "train")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")

    async def run():
        runtime = EpisodeRuntime(settings, tokenizer, {}, Limits(prompt=6000, response=200))
        answers = 0

        async def episode(task, session):
            walkthrough = iter(registry.get("alfworld").reference(settings.env.config, task))
            rng = random.Random(task.id)

            async def generate(prompt, max_tokens):
                nonlocal answers
                answers += 1
                before_answer(answers)
                text = tokenizer.decode(prompt)
                listed = text[text.rindex("Admissible actions:") :].splitlines()
                choices = [line[1:-1] for line in listed if line.startswith("'")]
                action = next(walkthrough) if session == 0 else rng.choice(choices)
                ids = tokenizer(f"<action>{action}</action>", add_special_tokens=False)["input_ids"]
                return Generation([*ids, end], None, 0)

            who = EpisodeId(step=1, split="train", uid=task.id, session=session)
            return await runtime.play(task, who, generate, lambda *_: [])

        try:
            return await asyncio.gather(*(episode(task, session) for task in tasks for session in (0, 1)))
        finally:
            await runtime.close()

    return asyncio.run(run())


def test_episodes_at_services_are_those_in_worker_processes(root, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("SDAR_ENV_TOKEN", TOKEN)
    here = play(settings(root, tmp_path / "here"), tokenizer)
    with serve(root) as one, serve(root) as two:
        rehearse(settings(root, tmp_path / "x", one.url, two.url), tokenizer, {}, 6000)
        there = play(settings(root, tmp_path / "there", one.url, two.url), tokenizer)
    assert len(here) == 12 and all(played.record.won for played in here[::2]), "walkthroughs win"
    for ours, theirs in zip(here, there, strict=True):
        assert ours.rows == theirs.rows
        assert ours.record.turns == theirs.record.turns and ours.record.reward == theirs.record.reward
        assert theirs.record.failed is None
    lines = (tmp_path / "there" / "episodes" / "train.jsonl").read_text().splitlines()
    assert len(lines) == 12 and TOKEN not in str(lines)


def test_a_service_killed_in_the_middle_ends_its_episodes_as_failed(root, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("SDAR_ENV_TOKEN", TOKEN)
    with serve(root) as one, serve(root) as two:

        def kill(number):
            if one.process.poll() is None and number >= 10 and _in_play(one) > 0:
                one.process.kill()
                one.process.wait()

        played = play(settings(root, tmp_path, one.url, two.url), tokenizer, kill)
    failed = [episode.record for episode in played if episode.record.failed]
    assert 0 < len(failed) < 12, "some were there, others not"
    assert all("was lost" in record.failed and not record.won for record in failed)
    assert all(episode.record.won for episode in played[::2] if not episode.record.failed)
    for line in (tmp_path / "episodes" / "train.jsonl").read_text().splitlines():
        json.loads(line)


def _in_play(service: ServiceProcess) -> float:
    """Episodes that have begun and not ended; one that is being loaded would simply begin elsewhere."""
    return service.metric('sdar_env_call_seconds_count{op="reset"}', TOKEN) - service.metric(
        "sdar_env_sessions_ended_total", TOKEN
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "max_steps=50", "--set", "success_reward=1"], "max_steps is 50 there and 12 here; success_reward"),
        (["--set", "data_root={other}"], "has other tasks in split 'train': 2 there, 6 here"),
    ],
)
def test_a_run_does_not_start_at_a_service_that_plays_something_else(
    root, tokenizer, tmp_path, monkeypatch, arguments, says
):
    monkeypatch.setenv("SDAR_ENV_TOKEN", TOKEN)
    other = tmp_path / "other"
    generate_games(other, "train", 2, seed=5, knobs=Knobs(receptacles=(3, 5), objects=(3, 5)))
    with serve(root, *(argument.format(other=other) for argument in arguments)) as service:
        with pytest.raises(ConfigError, match=says):
            rehearse(settings(root, tmp_path, service.url), tokenizer, {}, 6000)


def test_a_missing_token_is_named_before_anything_is_played(root, tokenizer, tmp_path, monkeypatch):
    monkeypatch.delenv("SDAR_ENV_TOKEN", raising=False)
    with serve(root) as service:
        with pytest.raises(ConfigError, match="wants another token"):
            rehearse(settings(root, tmp_path, service.url), tokenizer, {}, 6000)
