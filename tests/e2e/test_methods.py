"""Two steps of every method through the whole real stack: each does what it says.

`grpo` and `sdar` are trained by test_quickstart_run.py and test_real_training.py.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict

import pytest
import torch
from service_process import TOKEN, ServiceProcess
from transformers import AutoModelForCausalLM, AutoTokenizer

from sdar_verl.evaluation.jsonl import read_records
from sdar_verl.evaluation.records import EpisodeRecord, TokenRecord
from sdar_verl.lab import WEIGHTS
from sdar_verl.lab.model import build_model
from sdar_verl.skills.skill import canonical_text

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TWO_STEPS = {
    "trainer.total_training_steps": 2,
    "trainer.test_freq": -1,
    "trainer.save_freq": -1,
    "trainer.val_before_train": "false",
    "actor_rollout_ref.actor.optim.lr": 1e-3,
}


def train_with(train, name, overrides):
    run = train(name, {**TWO_STEPS, **overrides})
    assert run.wait() == 0, run.tail()
    assert run.left() == []
    data = run.lines("metrics.jsonl")[-1]["data"]
    assert math.isfinite(data["actor/grad_norm"]) and data["episode/failed_share"] == 0.0
    return run, data


def distribution(network, tokenizer, prompt, response, temperature):
    """What Hugging Face's model expects at each token of `response` after `prompt`, in float64."""
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = network(torch.tensor([ids + response])).logits[0, len(ids) - 1 : -1]
    return (logits.double() / temperature).softmax(-1)


def test_gigpo_on_rloo_with_the_filter_of_dapo(train):
    """The advantages that verl trained on are those of the recorded rewards; the shipped model earns different ones.

    Groups that won all or lost all are replaced by others, whose episodes are recorded in the same step.
    """
    run, data = train_with(train, "gigpo", {
        "method": "gigpo",
        "algorithm.adv_estimator": "rloo",
        "algorithm.filter_groups.enable": "true",
        "algorithm.filter_groups.metric": "acc",
        "actor_rollout_ref.actor.clip_ratio_high": 0.28,
        "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
        "sdar.step_groups.weight": 1e-9,
        "actor_rollout_ref.model.path": WEIGHTS,
        "actor_rollout_ref.actor.optim.lr": 1e-6,
        "actor_rollout_ref.rollout.n": 4,
        "env.alfworld.history_length": 0,
        "env.alfworld.room_list": "true",
        "env.alfworld.max_steps": 14,
        "env.pool.envs_per_worker": 16,
        "data.max_prompt_length": 384,
        "data.max_response_length": 24,
        "actor_rollout_ref.rollout.max_model_len": 512,
    })  # fmt: skip
    assert data["step_groups/size_mean"] > 1.0
    assert not any(name.startswith("sdar/") for name in data)
    groups = defaultdict(lambda: defaultdict(list))
    for episode in read_records(run.run_dir / "episodes/train.jsonl", EpisodeRecord):
        groups[episode.step][episode.uid].append(episode)
    for line in run.lines("metrics.jsonl"):
        played, found = groups[line["step"]].values(), line["data"]
        evicted = found.get("training/filter_groups/evicted_samples", 0)
        unused = evicted + found.get("training/filter_groups/discarded_surplus_samples", 0)
        decided = [group for group in played if len({episode.won for episode in group}) == 1]
        assert found["episode/count"] == 16 and len(played) == 4 + unused
        assert evicted <= len(decided) <= unused
        possible = []
        for group in (group for group in played if group not in decided):
            total = sum(episode.reward for episode in group)
            possible += [e.reward - (total - e.reward) / (len(group) - 1) for e in group]
        for end in ("max", "min"):
            assert min(abs(found[f"critic/advantages/{end}"] - value) for value in possible) < 1e-4
        assert found["critic/advantages/max"] > 1 and found["critic/advantages/min"] < 0


def test_grpo_opsd_on_ppo_distils_every_token_alike_on_webshop(train, catalogue, reader):
    run, data = train_with(train, "grpo_opsd", {
        **catalogue, **reader, "method": "grpo_opsd", "algorithm.adv_estimator": "gae",
    })  # fmt: skip
    (step, *_), *_ = [
        [turn.observation for turn in episode.turns]
        for episode in read_records(run.run_dir / "episodes/train.jsonl", EpisodeRecord)
    ]
    assert "Search" in step
    assert math.isfinite(data["critic/vf_loss"]) and data["critic/grad_norm"] > 0
    assert data["sdar/lambda"] == 0.005 and data["sdar/gate_mean"] == 1.0 and data["sdar/taught_share"] == 1.0
    assert data["sdar/loss"] != 0.0


def test_sdft_learns_from_the_questions_answer_alone_on_search_qa(train, world, reader):
    _, data = train_with(train, "sdft", {**world, **reader, "method": "sdft"})
    assert data["sdar/loss"] > 0, "a KL between two different prompts"
    assert data["sdar/context/reference_share"] == 1.0
    assert data["actor/pg_loss"] == 0.0 and data["actor/grad_norm"] > 0


def test_opd_is_scored_by_another_model(train, model, tmp_path):
    """The teacher has other weights and more layers, and the recorded scores are its own."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    other = build_model(tokenizer, hidden=64, layers=3, heads=2, kv_heads=1, ffn=64, max_positions=2048, seed=7)
    other.save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    run, data = train_with(train, "opd", {
        "method": "opd",
        "sdar.teacher.model_path": tmp_path / "teacher",
        "actor_rollout_ref.rollout.temperature": 0.7,
    })  # fmt: skip
    assert data["critic/advantages/mean"] == pytest.approx(data["sdar/gap_mean"], rel=1e-4)
    checked = 0
    for record in read_records(run.run_dir / "tokens.jsonl", TokenRecord):
        turn = record.turns[0]
        assert record.teacher_prompt == record.student_prompt
        teacher = distribution(other.eval(), tokenizer, record.teacher_prompt, turn.response_ids, 0.7)
        expected = teacher.log()[range(len(turn.response_ids)), turn.response_ids]
        assert turn.teacher_logp == pytest.approx(expected.tolist(), abs=2e-4)
        checked += max(map(abs, turn.gap)) > 0.1
    assert checked > 0, "teacher and student think alike: this test could not fail"


def test_skill_sd_on_gigpo_scored_by_the_rollout_engine(train, model):
    """The engine's gaps are those that Hugging Face's model gives, though the trainer's scores are none of its."""
    run, data = train_with(train, "skill_sd", {
        "method": "skill_sd",
        "sdar.step_groups.weight": 1.0,
        "sdar.teacher.placement": "rollout",
        "sdar.record.token_episodes": 2,
        "actor_rollout_ref.rollout.temperature": 1.0,
        "actor_rollout_ref.actor.optim.lr": 0.0,
    })  # fmt: skip
    assert data["sdar/loss"] > 0, "k3 is never negative"
    assert data["sdar/lambda"] == 0.001 and data["sdar/gate_mean"] == 1.0
    assert data["step_groups/size_mean"] > 1.0, "the first turns of a group begin alike"
    assert 0.0 <= data["step_groups/alone_share"] < 1.0
    assert data["sdar/teacher_rollout/episode_seconds"] > 0 and data["sdar/taught_share"] == 1.0
    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).eval()
    widest = 0.0
    for record in read_records(run.run_dir / "tokens.jsonl", TokenRecord):
        turn = record.turns[0]
        teacher, student = (
            distribution(network, tokenizer, prompt, turn.response_ids, 1.0).log()
            for prompt in (record.teacher_prompt, record.student_prompt)
        )
        gap = (teacher - student)[range(len(turn.response_ids)), turn.response_ids].tolist()
        assert turn.gap == pytest.approx(gap, abs=1e-4)
        widest = max(widest, *map(abs, gap))
    assert widest > 1e-3, "the prompts make no difference: this test could not fail"


def test_the_teacher_in_the_advantage_and_the_games_at_a_service(train, games, model, service_token):
    """RLSD with the plainest part, so that the advantages that verl trained on can be recognised.

    Episodes are played at an environment service; the teacher is shown each task's own solution, and scores at a server
    that the run starts. Its weights follow the policy's: in the second step it is half the first step's policy.
    """
    with ServiceProcess(
        "--workers", "1", "--set", f"data_root={games}", "--set", "max_steps=3", env="alfworld", token=TOKEN
    ) as service:
        run, data = train_with(train, "rlsd", {
            "method": "rlsd",
            "sdar.teacher.placement": "server",
            "sdar.teacher.update_rate": 0.5,
            "actor_rollout_ref.actor.kl_loss_coef": 0.0,
            "actor_rollout_ref.actor.optim.lr": 1e-2,
            "sdar.record.token_episodes": 8,
            "trainer.save_freq": 1,
            "sdar.teacher.remote.probe_tolerance": 0.001,
            "actor_rollout_ref.rollout.temperature": 1.0,
            "env.service.endpoints": f"[{service.url}]",
            "env.service.token_file": service_token,
            "sdar.context.parts": "[reference]",
            "sdar.distillation.advantage": "reverse_kl",
            "sdar.distillation.rl": "false",
            "sdar.distillation.coef": 2.0,
        })  # fmt: skip
        assert service.metric('sdar_env_call_seconds_count{op="reset"}', TOKEN) >= 16
    assert data["sdar/lambda"] == pytest.approx(2.0 * 0.99), "the second of 100 steps to 0"
    assert data["sdar/context/reference_share"] == 1.0
    assert data["sdar/advantage_change"] == pytest.approx(1.98 * data["sdar/gap_mean"], rel=1e-4)
    assert data["critic/advantages/mean"] == pytest.approx(data["sdar/advantage_change"], rel=1e-4)
    assert data["sdar/advantage_change"] != 0.0 and data["actor/grad_norm"] > 0
    assert "sdar/gate_mean" not in data and "sdar/loss" not in data
    assert data["sdar/teacher_remote/rows"] > 0 and data["sdar/teacher_remote/servers_usable"] == 1
    assert json.loads((run.run_dir / "teacher_fingerprint.json").read_text())["log_probs"]
    _check_average(run, model)


def _check_average(run, model):
    """The recorded scores are those of the weights that the average had before each step."""
    tokenizer, first = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).eval()
    average = AutoModelForCausalLM.from_pretrained(model).eval()
    state = torch.load(run.run_dir / "checkpoints/global_step_1/actor/model_world_size_1_rank_0.pt", weights_only=False)
    with torch.no_grad():
        for name, value in average.named_parameters():
            value.lerp_(getattr(state[name], "_local_tensor", state[name]), 0.5)
    moved = 0.0
    for record in read_records(run.run_dir / "tokens.jsonl", TokenRecord):
        turn = record.turns[0]
        scored = [
            distribution(network, tokenizer, record.teacher_prompt, turn.response_ids, 1.0).log()
            [range(len(turn.response_ids)), turn.response_ids]
            for network in (first, average)
        ]  # fmt: skip
        assert turn.teacher_logp == pytest.approx(scored[record.step - 1].tolist(), abs=2e-4)
        moved = max(moved, float((scored[0] - scored[1]).abs().max()))
    assert moved > 0.05, "the two models think alike: this test could not fail"


def test_skill_grpo_shows_the_student_skills_in_training_alone(train):
    """The skills are chosen by upper confidence bounds, whose counts grow with the steps."""
    run, data = train_with(train, "skill_grpo", {
        "method": "skill_grpo",
        "sdar.skills.retriever": "ucb",
        "data.max_prompt_length": 800,
        "trainer.test_freq": 2,
    })  # fmt: skip
    assert {name for name in data if name.startswith("sdar/")} == {
        "sdar/student_task_skill_share",
        "sdar/student_shrunk_share",
    }
    assert run.lines("metrics.jsonl")[0]["data"]["sdar/student_task_skill_share"] == 1.0, "nothing was tried yet"
    known = json.loads((run.run_dir / "skill_statistics.json").read_text())
    assert known["step"] == 2 and data["skills/episodes_counted"] == 8
    trained, played = (
        list(read_records(run.run_dir / "episodes" / f"{split}.jsonl", EpisodeRecord)) for split in ("train", "val")
    )
    assert all(episode.skills for episode in trained) and not any(episode.skills for episode in played)
    shortest = min(episode.turns[0].prompt_tokens for episode in trained)
    assert shortest > max(episode.turns[0].prompt_tokens for episode in played)
    assert all(turn.teacher_prompt_tokens is None for episode in trained for turn in episode.turns)


def test_opsd_compares_whole_distributions(train, model):
    """The loss is the divergence that Hugging Face's model gives for the recorded prompts and answers.

    The trust region mixes the logits of equal weights here: it runs, and must change nothing.
    """
    run, data = train_with(train, "opsd", {
        "method": "opsd",
        "sdar.context.parts": "[skills]",
        "sdar.teacher.trust_region": 0.3,
        "sdar.record.token_episodes": 8,
        "env.alfworld.max_steps": 1,
        "actor_rollout_ref.actor.optim.lr": 0.0,
        "actor_rollout_ref.rollout.temperature": 0.8,
    })  # fmt: skip
    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).eval()
    found = []
    for record in read_records(run.run_dir / "tokens.jsonl", TokenRecord):
        if record.step != 2:
            continue
        (turn,) = record.turns
        student, teacher = (
            distribution(network, tokenizer, prompt, turn.response_ids, temperature=0.8)
            for prompt in (record.student_prompt, record.teacher_prompt)
        )
        found.append((teacher * (teacher / student).log()).sum(-1))
    expected = float(torch.cat(found).mean())
    assert data["sdar/loss"] == pytest.approx(expected, rel=2e-2)
    assert expected > 1e-6, "the prompts make no difference: this test could not fail"
    assert data["actor/pg_loss"] == 0.0 and data["actor/grad_norm"] > 0


def test_a_teacher_that_follows_the_policy_and_parts_that_need_more_than_log_probs(train):
    """At rate 1 the moving average *is* the policy: without privileged text there is no gap.

    A guard that finds fault with everything stops the run after its second step. That an average goes on where it was
    is guarded by test_spot.py.

    The learning rate is so large that frozen weights, or those of the step before, would show, and so small that the
    gates do not all become 1, from which the baseline would leave nothing. The gate needs the entropy of the actor's
    forward pass, the ratio the old log-probabilities, the baseline the step's mean gate.
    """
    overrides = {
        "sdar.skills.retriever": "none",
        "sdar.skills.allow_missing": "true",
        "sdar.teacher.placement": "ref",
        "sdar.teacher.update_rate": 1.0,
        "sdar.distillation.rl": "false",
        "sdar.distillation.coef": 1.0,
        "sdar.distillation.gate": "soft_or",
        "sdar.distillation.gate_baseline": "mean",
        "sdar.distillation.importance_ratio": "detached",
        "sdar.record.token_episodes": 8,
        "actor_rollout_ref.actor.use_kl_loss": "true",
        "actor_rollout_ref.actor.kl_loss_coef": 0.0,
        "actor_rollout_ref.actor.optim.lr": 1e-3,
        "trainer.total_training_steps": 1000,
        "sdar.guards.zero_advantage": "{action: stop, limit: -1, steps: 2}",
    }
    run = train("ema", {**TWO_STEPS, **overrides})
    assert run.wait() == 3, run.tail()
    assert run.left() == []
    assert "sdar: stopped by a guard" in run.log.read_text()
    assert (run.run_dir / "checkpoints" / "global_step_2").is_dir(), "the stop saves its own step"
    widest = {}
    for record in read_records(run.run_dir / "tokens.jsonl", TokenRecord):
        gaps = [abs(gap) for turn in record.turns for gap in turn.gap]
        widest[record.step] = max(widest.get(record.step, 0.0), *gaps)
    assert run.steps() == sorted(widest) == [1, 2] and max(widest.values()) < 1e-5
    for line in run.lines("metrics.jsonl"):
        data = line["data"]
        assert data["actor/grad_norm"] > 0, "nothing was learned, so this test could not fail"
        assert data["actor/pg_loss"] == 0.0 and 0 < data["sdar/gate_mean"] < 1


def test_sdpo_shows_siblings_successes(train):
    """With a threshold that every episode reaches, each row's teacher is shown a sibling's whole attempt."""
    run, data = train_with(train, "sdpo", {
        "method": "sdpo",
        "sdar.context.success_reward_threshold": -100.0,
        "sdar.teacher.max_prompt_length": 1500,
        "actor_rollout_ref.rollout.max_model_len": 1600,
        "sdar.record.token_episodes": 8,
    })  # fmt: skip
    # a random model may write what its tokenizer takes for the end of a turn; such an attempt is not shown
    assert 0 < data["sdar/taught_share"] == data["sdar/context/demonstration_share"]
    assert "sdar/context/feedback_share" not in data
    episodes = {
        (e.step, e.uid, e.session): e for e in read_records(run.run_dir / "episodes/train.jsonl", EpisodeRecord)
    }
    found = 0
    for record in read_records(run.run_dir / "tokens.jsonl", TokenRecord):
        sibling = episodes[record.step, record.uid, 1 - record.session]
        shown = [canonical_text(f"Action: {turn.action}") for turn in sibling.turns]
        if record.teacher_prompt != record.student_prompt:
            assert [text for text in shown if text not in record.teacher_prompt] == []
            found += 1
    assert found > 0
