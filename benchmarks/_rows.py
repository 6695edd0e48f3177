"""The rows that every method of ``benchmarks/methods.py`` is measured on: played once, then as each method shows them.

The shipped model plays generated ALFWorld games through the project's own episode code; only the rollout engine is
another (plain PyTorch instead of vLLM).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from sdar_envs.alfworld.generate import generate_games
from sdar_envs.base import TaskRef
from transformers import PreTrainedModel

from sdar_verl import methods
from sdar_verl.agent.episode import EpisodeId, Limits
from sdar_verl.agent.privileged import Privileged, privileged_parts, teacher_row
from sdar_verl.agent.rows import Generation, PlayedEpisode, Row
from sdar_verl.agent.runtime import EpisodeRuntime
from sdar_verl.errors import ConfigError
from sdar_verl.lab import WEIGHTS, envs
from sdar_verl.lab.evaluate import load_policy
from sdar_verl.settings import Settings
from sdar_verl.teacher.contexts import Situation

SPLIT = "train"


@dataclass(frozen=True)
class Episode:
    """One played episode and where it belongs; its rows keep their messages, from which any prompt can be made."""

    task: TaskRef
    who: EpisodeId
    played: PlayedEpisode


def configuration(method: str, model: Path, folder: Path, overrides: list[str]) -> DictConfig:
    """``platform=cpu +lab=tiny method=<method>`` with the method's own KL term, learning rate 0 and `model`.

    ``+lab=tiny`` alone turns the KL term, and with it the reference model, off for every method.
    """
    lines = [
        f"method={method}",
        "platform=cpu",
        "+lab=tiny",
        f"actor_rollout_ref.actor.use_kl_loss={methods.compose(method).actor_rollout_ref.actor.use_kl_loss}",
        f"actor_rollout_ref.model.path='{model}'",
        "actor_rollout_ref.actor.optim.lr=0",
        "actor_rollout_ref.actor.optim.total_training_steps=1000",
        "actor_rollout_ref.rollout.calculate_log_probs=false",  # those of vLLM, which does not run here
        f"env.alfworld.data_root='{folder / 'games'}'",
        f"env.train_split={SPLIT}",
        f"sdar.run_dir='{folder / 'run'}'",
        "sdar.teacher.max_prompt_length=4096",  # a demonstration is longer than the lab's limit
    ]
    if method == "opd":
        lines.append(f"sdar.teacher.model_path='{model}'")  # a second copy of the weights
    with initialize_config_dir(str(methods.CONFIG), version_base=None):
        return hydra_compose("sdar", overrides=[*lines, *overrides])


def play(config: DictConfig, rows: int, seed: int, folder: Path, model: PreTrainedModel | None = None) -> list[Episode]:
    """Whole groups of episodes, played one turn after another until there are at least `rows` rows of turns.

    Args:
        config: of a method whose teacher waits for the group, so that rows keep their messages; of another, rows hold
            that method's prompts.
        model: plays with the shipped tokenizer; the shipped model unless given.
    """
    settings, rollout = _settings(config), config.actor_rollout_ref.rollout
    tasks = generate_games(folder / "games", SPLIT, -(-rows // rollout.n), seed, envs.get("alfworld").play.knobs)
    policy = load_policy(WEIGHTS, max_tokens=rollout.response_length, temperature=rollout.temperature, seed=seed)
    if model is not None:
        policy.model = model
    limits = Limits(prompt=rollout.prompt_length, response=rollout.response_length, turn=settings.max_turn_tokens)

    async def generate(prompt_ids: list[int], max_tokens: int) -> Generation:
        return Generation(policy.answer([prompt_ids])[0][:max_tokens], None, None)

    async def episodes() -> list[Episode]:
        runtime = EpisodeRuntime(settings, policy.tokenizer, _template(config), limits)
        found: list[Episode] = []
        try:
            for number, task in enumerate(tasks):
                for session in range(rollout.n):
                    who = EpisodeId(step=1, split="train", uid=f"task{number}", session=session)
                    found.append(Episode(task, who, await runtime.play(task, who, generate, extend=None)))
                if sum(len(episode.played.rows) for episode in found) >= rows:
                    break
        finally:
            await runtime.close()
        return found

    return asyncio.run(episodes())


def parts(config: DictConfig, tokenizer) -> tuple[Settings, Privileged]:
    """A method's settings, and what it shows its teacher or its student."""
    settings = _settings(config)
    limit = config.actor_rollout_ref.rollout.prompt_length
    return settings, privileged_parts(settings, tokenizer, _template(config), limit)


def as_method(episode: Episode, settings: Settings, privileged: Privileged) -> Episode:
    """`episode` as the agent loop leaves it under a method: the same answers behind the prompts that the method makes.

    A teacher that waits for the group gets its prompts in the step itself, as in a run.
    """
    waits = privileged.teacher is not None and privileged.context.needs_group
    task = episode.task
    situation = Situation(settings.env.name, task, seed=episode.who.session)
    units = privileged.context.units(situation) if privileged.context is not None and not waits else []

    def shown(row: Row) -> Row:
        if waits:
            return row
        builder = privileged.student or privileged.teacher
        if builder is None:
            return replace(row, messages=None)
        made = teacher_row(builder.build(row.messages, units, task_type=task.task_type), task, taught=True)
        prompt = {"prompt_ids" if privileged.student is not None else "teacher_prompt_ids": made.ids}
        noted = {"skills": list(made.units), "task_skill": made.task_skill, "shrunk": made.shrunk}
        return replace(row, messages=None, **prompt, **noted)

    return replace(episode, played=replace(episode.played, rows=[shown(row) for row in episode.played.rows]))


def _settings(config: DictConfig) -> Settings:
    settings = Settings.from_config(OmegaConf.to_container(config, resolve=True))
    if settings.rows != "step":
        raise ConfigError(f"sdar.rows={settings.rows}: this benchmark's rows are turns; set sdar.rows=step")
    return settings


def _template(config: DictConfig) -> dict:
    return OmegaConf.to_container(config.data.apply_chat_template_kwargs, resolve=True)
