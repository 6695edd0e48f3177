"""``sdar lab eval``: success on unseen games and floor plans, without skills, with right ones and with wrong ones."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdar_envs.base import EpisodeView, TaskRef

from sdar_verl.evaluation.intervals import Rate, wilson
from sdar_verl.lab import envs
from sdar_verl.lab.config import LabConfig, PlayConfig
from sdar_verl.lab.play import Outcome, play
from sdar_verl.lab.policy import Policy
from sdar_verl.lab.progress import Progress
from sdar_verl.lab.prompts import CONDITIONS, Prompts, SkillShelf, messages
from sdar_verl.lab.record import RECORD, config_of, read_record
from sdar_verl.skills import open_store

UNSEEN = "valid_unseen"  # see `LabEnv.worlds`
_AT_ONCE = 48


@dataclass(frozen=True)
class Score:
    """How one condition went.

    Attributes:
        rate: success over all games, with its Wilson interval.
        by_type: the same by task type.
        steps: mean environment steps of an episode.
        valid: share of answers that the parser took.
        admissible: share of actions that the environment understood.
    """

    rate: Rate
    by_type: dict[str, Rate]
    steps: float
    valid: float
    admissible: float


def evaluate(
    policy: Policy,
    config: LabConfig,
    *,
    games: int,
    seed: int,
    play_config: PlayConfig | None = None,
    conditions: Sequence[str] = tuple(CONDITIONS),
    say: Callable[[str], None] = print,
) -> dict[str, Score]:
    """Play each of `games` generated games once under each condition; their places or things were not fitted on.

    Args:
        policy: who plays.
        config: prompts and skills; the same as in the fit.
        games: number of games; task types take turns.
        seed: of the games and of the draw of wrong skills.
        play_config: the games; None are the environment's own.
        conditions: out of ``right``, ``none``, ``wrong``.
        say: receives progress lines.

    Returns:
        Scores by condition.

    Raises:
        ConfigError: a prompt is too long for the model.
    """
    lab = envs.get(config.env_name)
    play_config = play_config or lab.play
    prompt_format = lab.make_format(config)
    outcomes: dict[str, list[Outcome]] = {condition: [] for condition in conditions}
    with tempfile.TemporaryDirectory(prefix="sdar-lab-") as root:
        worlds = lab.worlds(Path(root), UNSEEN, games, seed, play_config.knobs)
        progress, done = Progress("evaluation", say), 0
        for world in worlds:
            seats = min(len(world.tasks), _AT_ONCE)
            playing = [lab.make_env(config, world, play_config.max_steps) for _ in range(seats)]
            for start in range(0, len(world.tasks), seats):
                group = world.tasks[start : start + seats]
                for condition in conditions:
                    outcomes[condition] += play(
                        group, playing, prompt_format, chooser(policy, config, condition, seed), lab.understands
                    )
                done += len(group)
                progress(done, games, None)
            for env in playing:
                env.close()
    return {condition: score(played) for condition, played in outcomes.items()}


def chooser(policy: Policy, config: LabConfig, condition: str, seed: int):
    """What `play` asks for answers: prompts built as in training, under `condition`."""
    lab = envs.get(config.env_name)
    prompt_format = lab.make_format(config)
    shelf = SkillShelf(open_store(config.skills), config.env_name)
    builder = Prompts(policy.tokenizer, config.max_positions, lab.answer_tokens)

    def choose(running: list[tuple[TaskRef, EpisodeView]]) -> list[str]:
        prompts = [
            builder.ids(messages(prompt_format, view), shelf.skills(condition, task, seed)) for task, view in running
        ]
        return [policy.tokenizer.decode(ids, skip_special_tokens=True) for ids in policy.answer(prompts)]

    return choose


def score(outcomes: Sequence[Outcome]) -> Score:
    """Sum up how one condition went."""
    by_type: dict[str, list[bool]] = defaultdict(list)
    for outcome in outcomes:
        by_type[outcome.task.task_type].append(outcome.won)
    steps = sum(outcome.steps for outcome in outcomes)
    return Score(
        rate=wilson(sum(outcome.won for outcome in outcomes), len(outcomes)),
        by_type={task_type: wilson(sum(won), len(won)) for task_type, won in sorted(by_type.items())},
        steps=steps / len(outcomes),
        valid=sum(outcome.valid for outcome in outcomes) / steps,
        admissible=sum(outcome.admissible for outcome in outcomes) / steps,
    )


def load_policy(
    folder: Path, *, max_tokens: int | None = None, temperature: float | None = None, seed: int = 0
) -> Policy:
    """The fitted model in `folder` with its tokenizer, in float32, read the way every other part of the run reads it.

    Args:
        folder: what `fit` made.
        max_tokens, temperature: None takes those of the environment that the model was fitted for.
        seed: of the sampling.

    Raises:
        FileNotFoundError: `folder` holds no record of a fit.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    record = read_record(folder)
    if record is None:
        raise FileNotFoundError(f"{folder} has no {RECORD}; make a model with: sdar lab fit {folder}")
    lab = envs.get(config_of(record).env_name)
    max_tokens = lab.answer_tokens if max_tokens is None else max_tokens
    temperature = lab.play.temperature if temperature is None else temperature
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return Policy(model, tokenizer, max_tokens=max_tokens, temperature=temperature, seed=seed)
