"""A real run with teacher servers that die and come back as others; see test_methods.py for the other placements."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sdar_verl.evaluation.jsonl import read_records
from sdar_verl.evaluation.records import EpisodeRecord, TokenRecord
from sdar_verl.lab.model import build_model

sys.path.insert(0, str(Path(__file__).parents[1] / "teacher"))  # vllm_process.py

from vllm_process import TOKEN, VllmProcess  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LONG = {
    "trainer.total_training_steps": 1000,
    "trainer.test_freq": -1,
    "trainer.val_before_train": "false",
    "actor_rollout_ref.actor.optim.lr": 1e-3,
    "actor_rollout_ref.rollout.temperature": 1.0,
    "sdar.record.token_episodes": 2,
}
LONGEST = 800 + 12 + 1  # privileged prompt, response, and the token that a server has to generate


def expected_scores(model: Path, record: TokenRecord) -> list[float]:
    """What Hugging Face's model gives for the first response of a record."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    prompt, response = tokenizer.encode(record.teacher_prompt, add_special_tokens=False), record.turns[0].response_ids
    with torch.no_grad():
        found = network(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return found[range(len(response)), response].tolist()


def check_frozen(run, model: Path) -> dict[int, float]:
    """Every recorded score is the initial model's; by step, how far the student has moved from its first weights."""
    moved: dict[int, float] = {}
    for record in read_records(run.run_dir / "tokens.jsonl", TokenRecord):
        turn = record.turns[0]
        assert turn.teacher_logp == pytest.approx(expected_scores(model, record), abs=2e-4)
        moved[record.step] = max(moved.get(record.step, 0.0), *map(abs, turn.gap))
    return moved


def remote(run, name: str) -> list[float]:
    return [line["data"][f"sdar/teacher_remote/{name}"] for line in run.lines("metrics.jsonl")]


def stop(run) -> None:
    run.signal(signal.SIGINT)
    assert run.wait(90) == 130, run.tail()
    assert run.left() == []


def told_to_end_while_it_waits(train, server: VllmProcess, common: dict) -> None:
    """A run whose teacher is gone, and then its machine too, does not wait out its patience of ten minutes."""
    run = train("waits", {
        **common,
        "sdar.teacher.remote.endpoints": f"[{server.url}]",
        "sdar.teacher.remote.patience": 600,
        "sdar.spot.sigterm": "true",
        "sdar.spot.on_notice": "abandon",
    })  # fmt: skip
    run.until(lambda: len(run.steps()) >= 2, "two steps")
    server.kill()
    played = run.run_dir / "episodes" / "train.jsonl"

    def all_played() -> bool:
        return sum(episode.step > run.steps()[-1] for episode in read_records(played, EpisodeRecord)) == 8

    run.until(all_played, "a step that waits for its scores")
    time.sleep(5)
    assert all_played(), "it waits"
    run.signal(signal.SIGTERM)
    assert run.wait(90) == 75, run.tail()
    assert f"goes on from the checkpoint of step {run.steps()[-1]}" in run.log.read_text(), run.tail()
    assert run.left() == []


def test_two_servers_of_which_one_is_killed_then_both_and_one_returns_as_another_model(train, model, tmp_path):
    """The run goes on with the other server, then without distillation, and never with the wrong model's scores."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    other = tmp_path / "other"
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.save_pretrained(other)
    build_model(tokenizer, hidden=64, layers=2, heads=2, kv_heads=1, ffn=128, max_positions=2048, seed=5
                ).save_pretrained(other)  # fmt: skip
    servers = [VllmProcess(model, tmp_path / f"server{n}.log", LONGEST) for n in range(2)]
    try:
        addresses = ",".join(server.ready().url for server in servers)
        common = {
            **LONG,
            "sdar.teacher.placement": "remote",
            "sdar.teacher.remote.token_file": token,
            "sdar.teacher.remote.probe_tolerance": 0.001,
        }
        run = train("remote", {
            **common,
            "sdar.teacher.remote.endpoints": f"[{addresses}]",
            "sdar.teacher.remote.on_failure": "skip",
            "sdar.teacher.remote.patience": 3,  # less than a server takes to start
        })  # fmt: skip
        run.until(run.steps, "first step")
        servers[0].kill()
        run.until(lambda: remote(run, "servers_usable")[-1] == 1, "step with one server")
        servers[1].kill()
        servers[0].launch(other)
        servers[1].launch(model)
        run.until(lambda: any(remote(run, "skipped")), "step without distillation")
        run.until(lambda: any(remote(run, "rejected")), "answer of the wrong model")
        run.until(lambda: remote(run, "skipped")[-1] == 0, "return of the right one")
        stop(run)
        told_to_end_while_it_waits(train, servers[1], common)
    finally:
        for server in servers:
            server.kill()
    lines = [line["data"] for line in run.lines("metrics.jsonl")]
    moved = check_frozen(run, model)
    scored = {line["step"] for line in run.lines("metrics.jsonl") if not line["data"]["sdar/teacher_remote/skipped"]}
    assert set(moved) - {run.steps()[-1] + 1} == scored, "every step but the skipped ones has the teacher's scores"
    assert max(moved.values()) > 0.01, "the student has not moved: this test could not fail"
    for data in lines:
        skipped = data["sdar/teacher_remote/skipped"] == 1
        assert (data["sdar/teacher_remote/rows"] == 0) == skipped and data["actor/grad_norm"] >= 0
        assert skipped == ("sdar/loss" not in data), "no token was distilled"
    written = [
        path for path in run.run_dir.rglob("*") if path.is_file() and path.suffix in (".json", ".yaml", ".jsonl")
    ]
    assert written and not any(TOKEN in path.read_text(errors="replace") for path in [*written, run.log])
