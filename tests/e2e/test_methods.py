"""One step of each method through the whole real stack: every part gets what it needs, and does what it says."""

from __future__ import annotations

import math

import pytest

from sdar_verl.evaluation.jsonl import read_records
from sdar_verl.evaluation.records import EpisodeRecord

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ONE_STEP = {
    "trainer.total_training_steps": 1,
    "trainer.save_freq": -1,
    "trainer.val_before_train": "false",
    "actor_rollout_ref.actor.optim.lr": 1e-3,
}


def step(train, name, overrides):
    run = train(name, {**ONE_STEP, **overrides})
    assert run.wait() == 0, run.tail()
    assert run.left() == []
    data = run.lines("metrics.jsonl")[-1]["data"]
    assert math.isfinite(data["actor/grad_norm"]) and data["episode/failed_share"] == 0.0
    return run, data


def test_skill_sd(train):
    _, data = step(train, "skill_sd", {"method": "skill_sd"})
    assert data["sdar/loss"] > 0, "k3 is never negative"
    assert data["sdar/lambda"] == 0.001 and data["sdar/gate_mean"] == 1.0


def test_rlsd(train):
    _, data = step(train, "rlsd", {"method": "rlsd"})
    assert data["sdar/lambda"] == 0.5 and math.isfinite(data["sdar/gap_mean"])
    assert math.isfinite(data["sdar/advantage_change"])
    assert "sdar/gate_mean" not in data and "sdar/loss" not in data


def test_skill_grpo_shows_the_student_skills_in_training_alone(train):
    run, data = step(train, "skill_grpo", {"method": "skill_grpo", "data.max_prompt_length": 800})
    assert not any(name.startswith("sdar/") for name in data)
    trained, played = (
        list(read_records(run.run_dir / "episodes" / f"{split}.jsonl", EpisodeRecord)) for split in ("train", "val")
    )
    assert all(episode.skills for episode in trained) and not any(episode.skills for episode in played)
    shortest = min(episode.turns[0].prompt_tokens for episode in trained)
    assert shortest > max(episode.turns[0].prompt_tokens for episode in played)
    assert all(turn.teacher_prompt_tokens is None for episode in trained for turn in episode.turns)


def test_parts_that_need_more_than_log_probs(train):
    """Entropy from the actor's forward pass, old log-probabilities and the step's mean gate, without the reward."""
    _, data = step(train, "parts", {
        "sdar.distillation.rl": "false",
        "sdar.distillation.coef": 1.0,
        "sdar.distillation.gate": "soft_or",
        "sdar.distillation.gate_baseline": "mean",
        "sdar.distillation.importance_ratio": "detached",
        "actor_rollout_ref.actor.use_kl_loss": "false",
    })  # fmt: skip
    assert 0 < data["sdar/gate_mean"] < 1
    assert data["actor/pg_loss"] == 0.0 and data["actor/grad_norm"] > 0
