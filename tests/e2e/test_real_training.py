"""A short run of each kind through the whole real stack: Ray, FSDP2, vLLM, TransferQueue, environment workers."""

from __future__ import annotations

import json
import math

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from sdar_verl.evaluation.jsonl import read_records
from sdar_verl.evaluation.panel import Panel
from sdar_verl.evaluation.records import EpisodeRecord, TokenRecord

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TEMPERATURE = 0.8
SAME_WEIGHTS = 1e-4  # nats; float32 in both, other order of sums


def test_sdar_with_step_rows(train, model):
    """Guards one run's files, its teacher's numbers, and what it leaves behind."""
    overrides = {
        "trainer.save_freq": 1,
        "actor_rollout_ref.rollout.temperature": TEMPERATURE,
        "actor_rollout_ref.actor.optim.lr": 1e-2,  # so large that stale weights would show
        "sdar.record.token_episodes": 8,
    }
    run = train("run", overrides, alone=True)
    run.until(run.steps, "first metrics")
    assert run.note_ports() and run.named("sdar_envs.pool_worker"), "the test would not see what is left"
    (server,) = (own for own in run.look() if own.ppid() == run.process.pid)
    forked = {own.name()[:15] for own in server.children()}  # as long as the kernel keeps them
    assert {"ray::WorkerDict", "ray::TaskRunner"} <= forked
    assert run.wait() == 0, run.tail()
    assert run.left() == []

    _check_metrics(run, steps=[0, 1, 2])
    _check_episodes(run, steps=[0, 1, 2])
    _check_tokens(run, model, {1: None, 2: run.run_dir / "checkpoints" / "global_step_1"})
    settings = yaml.safe_load((run.run_dir / "config.yaml").read_text())
    assert settings["sdar"]["distillation"]["enabled"] is True
    manifest = json.loads((run.run_dir / "manifest.json").read_text())
    panel = Panel.load(run.run_dir / "panel.json")
    assert panel.hash in json.dumps(manifest)
    played = list(read_records(run.run_dir / "episodes" / "val.jsonl", EpisodeRecord))
    for step in (0, 1, 2):
        assert sorted(e.task_id for e in played if e.step == step) == sorted(task.id for task in panel.tasks)


def _check_metrics(run, steps):
    lines = run.lines("metrics.jsonl")
    assert [line["step"] for line in lines] == steps
    for line in lines[1:]:
        data = line["data"]
        wanted = ["sdar/loss", "sdar/gate_mean", "sdar/gate_active_ratio", "sdar/gap_mean", "sdar/gap_negative_share"]
        wanted += ["sdar/lambda", "sdar/task_skill_share", "episode/success_rate", "val/success_rate", "val/n"]
        wanted += [f"timing_s/{phase}" for phase in ("gen", "old_log_prob", "teacher", "update_actor", "step")]
        assert [name for name in wanted if not math.isfinite(data.get(name, math.nan))] == []
        assert data["sdar/task_skill_share"] == 1.0 and data["sdar/teacher_shrunk_share"] == 0.0
        assert data["episode/count"] == 8 and data["episode/failed_share"] == 0.0
        for histogram in ("gap_hist", "gate_hist"):
            shares = [value for name, value in data.items() if name.startswith(f"sdar/{histogram}/")]
            assert sum(shares) == pytest.approx(1.0)


def _check_episodes(run, steps):
    train = list(read_records(run.run_dir / "episodes" / "train.jsonl", EpisodeRecord))
    assert len(train) == 8 * (len(steps) - 1)
    assert len({(e.step, e.uid, e.session) for e in train}) == len(train), "an episode is there twice"
    for episode in train:
        assert episode.split == "train" and episode.failed is None and episode.skills
        assert all(turn.teacher_prompt_tokens > turn.prompt_tokens for turn in episode.turns)
    panel = list(read_records(run.run_dir / "episodes" / "val.jsonl", EpisodeRecord))
    assert [sum(e.step == step for e in panel) for step in steps] == [6] * len(steps)
    assert all(turn.teacher_prompt_tokens is None for e in panel for turn in e.turns)


def _check_tokens(run, model, weights):
    """Score each episode's first turn with Hugging Face's model: the recorded numbers are what they say they are."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    records = list(read_records(run.run_dir / "tokens.jsonl", TokenRecord))
    assert [sum(record.step == step for record in records) for step in weights] == [8] * len(weights)
    for step, checkpoint in weights.items():
        network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        if checkpoint is not None:
            network.load_state_dict(_one_rank(checkpoint))
        widest = 0.0
        for record in (record for record in records if record.step == step):
            turn = record.turns[0]
            for prompt, recorded in (
                (record.student_prompt, turn.student_logp),
                (record.teacher_prompt, turn.teacher_logp),
            ):
                expected = _score(network, tokenizer, prompt, turn.response_ids)
                assert recorded == pytest.approx(expected, abs=SAME_WEIGHTS)
            assert turn.gap == pytest.approx([t - s for s, t in zip(turn.student_logp, turn.teacher_logp, strict=True)])
            assert turn.gate == pytest.approx([1 / (1 + math.exp(-5.0 * gap)) for gap in turn.gap], abs=1e-5)
            widest = max(widest, *map(abs, turn.gap))
        assert widest > 100 * SAME_WEIGHTS, "the prompts make no difference: this test could not fail"


def _score(network, tokenizer, prompt, response):
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = network(torch.tensor([ids + response])).logits[0, len(ids) - 1 : -1]
    return (logits / TEMPERATURE).log_softmax(-1)[range(len(response)), response].tolist()


def _one_rank(checkpoint):
    (shard,) = (checkpoint / "actor").glob("model_world_size_1_rank_0.pt")
    state = torch.load(shard, map_location="cpu", weights_only=False)
    return {name: getattr(tensor, "_local_tensor", tensor) for name, tensor in state.items()}


def test_two_ranks_and_no_privileged_text_no_gap(train):
    """Guards that the teacher without skills is the student: two ranks, two vLLM replicas, whole-trajectory rows, the
    reference as teacher, top-k distributions and T = 1.3.

    That runs on one machine share nothing is guarded by running these tests two at a time.
    """
    run = train("wide", {
        "sdar.skills.retriever": "none",
        "sdar.skills.allow_missing": "true",
        "sdar.record.token_episodes": 8,
        "trainer.save_freq": -1,
        "trainer.val_before_train": "false",
        "trainer.test_freq": -1,
        "trainer.total_training_steps": 1,
        "sdar.rows": "trajectory",
        "sdar.teacher.placement": "ref",
        "sdar.distillation.divergence": "topk",
        "sdar.distillation.topk": 20,
        "sdar.teacher.max_prompt_length": 800,
        "trainer.n_gpus_per_node": 2,
        "data.max_response_length": 700,
        "sdar.max_turn_tokens": 12,
        "actor_rollout_ref.rollout.max_model_len": 1280,
        "actor_rollout_ref.rollout.temperature": 1.3,
    })  # fmt: skip
    assert run.wait() == 0, run.tail()
    assert run.left() == []
    records = list(read_records(run.run_dir / "tokens.jsonl", TokenRecord))
    assert len(records) == 8 and all(len(record.turns) == 1 for record in records)
    gaps = [gap for record in records for turn in record.turns for gap in turn.gap]
    gates = [gate for record in records for turn in record.turns for gate in turn.gate]
    assert len(gaps) > 100 and max(map(abs, gaps)) < 1e-5
    assert gates == pytest.approx([0.5] * len(gates), abs=1e-4)
    data = run.lines("metrics.jsonl")[-1]["data"]
    assert data["sdar/task_skill_share"] == 0.0 and abs(data["sdar/gap_mean"]) < 1e-5
    assert abs(data["sdar/loss"]) < 1e-6
