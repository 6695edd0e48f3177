"""``sdar lab fit``: generated games -> lessons -> tokenizer -> fitted model, seeded and cached by its inputs."""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from random import Random
from statistics import fmean

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from sdar_verl.lab import envs
from sdar_verl.lab.config import LabConfig
from sdar_verl.lab.corpus import Lesson, State, lessons, walk
from sdar_verl.lab.model import build_model
from sdar_verl.lab.progress import Progress
from sdar_verl.lab.prompts import Prompts, SkillShelf
from sdar_verl.lab.record import RECORD, config_of, fingerprint, read_record, weights_hash
from sdar_verl.lab.tokenizer import train_tokenizer
from sdar_verl.lab.training import Example, train
from sdar_verl.skills import open_store
from sdar_verl.teacher.context import HEADING

_SPLIT = "train"
_TOKENIZER_STATES = 6000
_PACKAGES = ("torch", "transformers", "tokenizers")
_TOGETHER = 2  # stages under the first learning rate schedule
_CURVE = 100  # steps whose losses are recorded, for whoever repeats the fit

Say = Callable[[str], None]


def fit(config: LabConfig, out: Path, *, say: Say = print, force: bool = False) -> Path:
    """Make the model of `config` in `out` and return `out`; does nothing where it already lies there.

    Runs on one thread. The same configuration on the same machine and libraries gives the same bytes; on another
    processor the model differs in rounding. The folder appears complete or not at all.

    Args:
        config: what to make.
        out: model folder; its ``lab.json`` records configuration, fingerprint, losses and versions.
        say: receives progress lines.
        force: make the model again though it is there.

    Raises:
        FileExistsError: `out` holds something that this command did not make.
        ConfigError: a prompt is too long for the model.
    """
    key = fingerprint(config)
    found = read_record(out)
    if found and found["fingerprint"] == key and not force:
        say(f"{out} is up to date (inputs {key[:12]})")
        return out
    if out.exists() and found is None and any(out.iterdir()):
        raise FileExistsError(f"{out} holds files but no {RECORD}: name an empty or a new folder")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        record = {"fingerprint": key, "env": config.env_name, "config": asdict(config), **_make(config, partial, say)}
        (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        partial.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    finally:
        torch.set_num_threads(threads)
        shutil.rmtree(partial, ignore_errors=True)
    return out


def repeat(folder: Path, say: Say = print, steps: int = _CURVE) -> tuple[list[float], list[float]]:
    """Make the beginning of the fit of `folder` again, from its recorded configuration and nothing else.

    Games, lessons, tokenizer, first weights and the order of the examples must all be the same for the losses to agree.
    A processor of another kind adds in another order: seen to change the means of steps 1 to 50 by less than 0.2 %, and
    later ones by up to 2.6 %.

    Args:
        folder: of the model.
        say: receives progress lines.
        steps: how many, at most those that were recorded.

    Returns:
        Mean losses (nats a token) of each ten of these steps: as recorded, and now.

    Raises:
        FileNotFoundError: `folder` holds no record of a fit.
        ValueError: the games give another tokenizer than the folder's.
    """
    record = read_record(folder)
    if record is None:
        raise FileNotFoundError(f"{folder} has no {RECORD}")
    config = config_of(record)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model, tokenizer, stages = _prepare(config, say)
        if tokenizer.get_vocab() != AutoTokenizer.from_pretrained(folder).get_vocab():
            raise ValueError(f"the tokenizer of {folder} is not the one that its configuration makes")
        again = _curve(_train(config, model, tokenizer, stages, say, only=min(steps, _CURVE)))
        return record["curve"][: len(again)], again
    finally:
        torch.set_num_threads(threads)


def _make(config: LabConfig, folder: Path, say: Say) -> dict:
    start = time.perf_counter()
    model, tokenizer, stages = _prepare(config, say)
    losses = _train(config, model, tokenizer, stages, say)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    packages = envs.get(config.env_name).packages
    last = losses[-max(1, len(losses) // 20) :]
    return {
        "examples": sum(map(len, stages)),
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": len(tokenizer),
        "steps": len(losses),
        "curve": _curve(losses),
        "last_loss": sum(last) / len(last),
        "seconds": round(time.perf_counter() - start),
        "weights_sha256": weights_hash(folder),
        "versions": {name: version(name) for name in (*_PACKAGES, *packages)},
        "machine": platform.machine(),
    }


def _prepare(config: LabConfig, say: Say) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, tuple[Examples, ...]]:
    """The untrained model, its tokenizer, and what it will be trained on."""
    states = collect(config, say)
    tokenizer = make_tokenizer(config, states)
    stages = tuple(Examples(config, tokenizer, stage) for stage in lessons_of(config, states))
    model = build_model(
        tokenizer,
        hidden=config.hidden,
        layers=config.layers,
        heads=config.heads,
        kv_heads=config.kv_heads,
        ffn=config.ffn,
        max_positions=config.max_positions,
        seed=config.seed,
    )
    return model, tokenizer, stages


def _train(
    config: LabConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    stages: Sequence[Sequence[Example]],
    say: Say,
    only: int | None = None,
) -> list[float]:
    losses: list[float] = []
    for together in (stages[:_TOGETHER], *([stage] for stage in stages[_TOGETHER:])):
        losses += train(
            model,
            together,
            pad=tokenizer.pad_token_id,
            batch_size=config.batch,
            prompt_loss=config.prompt_loss,
            matrix_lr=config.matrix_lr,
            other_lr=config.other_lr,
            warmup=config.warmup,
            clip=config.clip,
            seed=config.seed,
            progress=Progress("fit", say),
            only=only,
        )
        if only is not None:
            break
    return losses


def _curve(losses: Sequence[float]) -> list[float]:
    return [round(fmean(losses[first : first + 10]), 4) for first in range(0, min(_CURVE, len(losses)), 10)]


def collect(config: LabConfig, say: Say) -> list[State]:
    """The states of all training games, in the games' order; the games themselves are thrown away again."""
    lab = envs.get(config.env_name)
    prompt_format = lab.make_format(config)
    states: list[State] = []
    with tempfile.TemporaryDirectory(prefix="sdar-lab-") as root:
        worlds = lab.worlds(Path(root), _SPLIT, config.train_games, config.seed, config.knobs)
        progress, done = Progress("games", say), 0
        for world in worlds:
            env = lab.make_env(config, world)
            for task in world.tasks:
                states += walk(lab, env, prompt_format, task, config.noises, Random(f"{config.seed}/{task.id}"))
                done += 1
                progress(done, config.train_games, None)
            env.close()
    return states


def lessons_of(config: LabConfig, states: Sequence[State]) -> list[list[Lesson]]:
    """What each of the configuration's stages teaches."""
    shelf = SkillShelf(open_store(config.skills), config.env_name)
    return [
        lessons(
            states,
            shelf,
            stage.shares,
            wrong_plan=stage.wrong_plan,
            random_action=stage.random_action,
            seed=config.seed + number,
        )
        for number, stage in enumerate(config.stages)
    ]


def make_tokenizer(config: LabConfig, states: Sequence[State]) -> PreTrainedTokenizerBase:
    """A tokenizer for the prompts of `states`, all their actions, and the skills."""
    lab = envs.get(config.env_name)
    chosen = Random(config.seed).sample(list(states), min(_TOKENIZER_STATES, len(states)))
    texts = [state.prompt for state in chosen]
    texts += [lab.answer(action) for state in chosen for action in state.can]
    texts += [skill.text for skill in open_store(config.skills).all()] * 100
    texts += [f"system\n{HEADING}\n", "user\n", "assistant\n"] * 1000
    return train_tokenizer(texts, config.vocab, lab.tags)


class Examples(Sequence[Example]):
    """Token ids of each lesson, made when asked for, by the very builder that makes a teacher's prompt in training."""

    def __init__(self, config: LabConfig, tokenizer: PreTrainedTokenizerBase, found: Sequence[Lesson]):
        self._tokenizer, self._lessons, self._lab = tokenizer, found, envs.get(config.env_name)
        self._builder = Prompts(tokenizer, config.max_positions, self._lab.answer_tokens)

    def __len__(self) -> int:
        return len(self._lessons)

    def __getitem__(self, number: int) -> Example:  # type: ignore[override]
        lesson = self._lessons[number]
        prompt = self._builder.ids([{"role": "user", "content": lesson.state.prompt}], lesson.skills)
        answer = self._tokenizer(self._lab.answer(lesson.action)).input_ids
        return Example(tuple(prompt), (*answer, self._tokenizer.eos_token_id))
