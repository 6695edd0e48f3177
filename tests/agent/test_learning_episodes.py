"""Whole steps of episodes in real environments with the retrievers that need more than the task's type."""

from __future__ import annotations

import asyncio
import copy
import sys
from pathlib import Path

import pytest
from sdar_envs import registry
from sdar_envs.alfworld.generate import generate_games
from sdar_envs.alfworld.knobs import Knobs

from sdar_verl.agent.episode import EpisodeId, Limits
from sdar_verl.agent.rows import Generation
from sdar_verl.agent.runtime import EpisodeRuntime
from sdar_verl.lab.tokenizer import train_tokenizer
from sdar_verl.rehearsal import rehearse
from sdar_verl.settings import Settings
from sdar_verl.skill_learning import SkillLearning
from sdar_verl.skills import open_store
from sdar_verl.skills.errors import SkillError

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_settings import CONFIG  # noqa: E402

LIMITS = Limits(prompt=6000, response=200)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("games")
    generate_games(folder, "train", 6, seed=1, knobs=Knobs(receptacles=(3, 5), objects=(3, 5)))
    return folder


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["Your task is to: put a mug in drawer. go to desk 1"] * 20, 330)


def settings(root, run_dir, retriever):
    """The student itself is shown the skills, as in ``method=skill_grpo``; episodes of two steps."""
    config = copy.deepcopy(CONFIG)
    config["sdar"] |= {"method": "skill_grpo", "run_dir": str(run_dir)}
    config["sdar"]["distillation"]["enabled"] = False
    config["sdar"]["skills"] |= {"store": "alfworld_tiny", "retriever": retriever, "student": "train"}
    config["env"] |= {"alfworld": {"max_steps": 2, "thinking": False, "data_root": str(root)}}
    config["env"]["pool"] = {
        "workers": 1, "envs_per_worker": 6, "step_timeout": 60, "reset_timeout": 60, "episode_timeout": 600
    }  # fmt: skip
    return Settings.from_config(config)


def play_step(runtime, tokenizer, step):
    """Every training task once; answers ``look``. Returns the prompts and what was played."""
    tasks = registry.get("alfworld").tasks(runtime.settings.env.config, "train")
    answer = [*tokenizer("<action>look</action>")["input_ids"], tokenizer.convert_tokens_to_ids("<|im_end|>")]
    prompts = {}

    async def episode(task):
        async def generate(prompt, max_tokens):
            prompts.setdefault(task.id, tokenizer.decode(prompt))
            return Generation(answer, None, 0)

        who = EpisodeId(step=step, split="train", uid=task.id, session=0)
        return task, await runtime.play(task, who, generate, lambda *_: [])

    async def run():
        return await asyncio.gather(*(episode(task) for task in tasks))

    return prompts, run()


def ends(played):
    return [
        {
            "task_type": task.task_type,
            "retrieved": episode.record.skills,
            "won": episode.record.won,
            "reward": episode.record.reward,
        }
        for task, episode in played
    ]


def test_ucb_tries_another_skill_each_step_and_says_so_in_rows_and_prompts(root, tokenizer, tmp_path):
    chosen = settings(root, tmp_path, "ucb")
    store = open_store("alfworld_tiny")
    learning = SkillLearning(tmp_path, chosen.skills)
    rehearse(chosen, tokenizer, {}, LIMITS.prompt)
    learning.start(0, None)

    async def run():
        runtime, seen = EpisodeRuntime(chosen, tokenizer, {}, LIMITS), []
        try:
            for step in (1, 2, 3):
                prompts, playing = play_step(runtime, tokenizer, step)
                played = await playing
                for task, episode in played:
                    (shown,) = [id for id in episode.rows[-1].skills if not store.get(id).is_general]
                    assert episode.record.skills == episode.rows[0].skills
                    assert store.get(shown).text in prompts[task.id]
                    seen.append((task.task_type, step, shown))
                if step < 3:
                    learning.count(step, ends(played))
            with pytest.raises(SkillError, match="are of step 2, step 4 needs those of step 3"):
                await play_step(runtime, tokenizer, 4)[1]
        finally:
            await runtime.close()
        return seen

    seen = asyncio.run(run())
    for task_type in {kind for kind, _, _ in seen}:
        by_step = [{shown for kind, at, shown in seen if (kind, at) == (task_type, step)} for step in (1, 2, 3)]
        assert all(len(shown) == 1 for shown in by_step)  # one skill a type and step
        assert len(set.union(*by_step)) == 3  # nothing is won, so each step tries what was not tried yet
        assert store.get(*by_step[0]).task_type == task_type


def test_semantic_reads_what_the_environment_says(root, tokenizer, tmp_path, monkeypatch):
    """With an encoder that counts vowels; the tasks' words come from the games themselves, each is encoded once."""
    asked = []

    class Letters:
        def __init__(self, model):
            pass

        def encode(self, texts):
            import numpy as np

            asked.extend(texts)
            return np.array([[text.lower().count(letter) for letter in "aeiou"] for text in texts], dtype=np.float32)

    monkeypatch.setattr("sdar_verl.skills.retrievers.semantic.SentenceEncoder", Letters)
    chosen = settings(root, tmp_path, "semantic")

    async def run():
        runtime = EpisodeRuntime(chosen, tokenizer, {}, LIMITS)
        try:
            prompts, playing = play_step(runtime, tokenizer, 1)
            return prompts, await playing
        finally:
            await runtime.close()

    prompts, played = asyncio.run(run())
    store = open_store("alfworld_tiny")
    said = [text for text in asked if text not in {skill.text for skill in store.all()}]
    assert len(said) == len(set(said)) and all(any(text in prompt for prompt in prompts.values()) for text in said)
    for _, episode in played:
        assert len([id for id in episode.record.skills if not store.get(id).is_general]) == 1
