"""The quickstart for real, with fewer steps, episodes and games: two runs, a report, and nothing twice."""

import json
from dataclasses import replace

import pytest
from real_run import python_path

from sdar_verl.quickstart import run as quick
from sdar_verl.quickstart.plan import command, load_plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def short(monkeypatch):
    plan = replace(load_plan("tiny"), steps=2, every=2, panel=6, train_games=12)
    monkeypatch.setattr(quick, "load_plan", lambda model, env: plan)
    monkeypatch.setattr(quick, "command", lambda *args, **more: [*command(*args, **more), "data.train_batch_size=3"])
    return plan


def test_both_methods_train_from_one_start_and_the_report_compares_them(tmp_path, short, monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")  # or a test beside it takes nearly all of the machine
    monkeypatch.setenv("PYTHONPATH", python_path())  # imports faster
    out, said = tmp_path / "a folder, with=signs", []
    page = quick.quickstart(out, seed=5, say=said.append)

    assert f"report: {page}" in said[-1]
    text = page.read_text(encoding="utf-8")
    assert "grpo" in text and "sdar" in text and "Paired differences" in text
    panels = {(out / method / "panel.json").read_text() for method in short.methods}
    assert len(panels) == 1
    metrics = {}
    for method in short.methods:
        lines = (out / method / "metrics.jsonl").read_text().splitlines()
        metrics[method] = {line["step"]: line["data"] for line in map(json.loads, lines)}
        assert sorted(metrics[method]) == [0, 1, 2]
        assert {0, 2} == {step for step, data in metrics[method].items() if "val/success_rate" in data}
        assert any(line.startswith(f"{method}: step 2/2") for line in said)
    tasks = [played(out / method) for method in short.methods]
    assert tasks[0] == tasks[1]  # the same games in both runs' steps
    assert "sdar/gate_mean" not in metrics["grpo"][1] and 0 < metrics["sdar"][1]["sdar/gate_mean"] < 1
    assert metrics["sdar"][1]["sdar/task_skill_share"] == 1.0

    said.clear()
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/metrics.jsonl")}
    assert quick.quickstart(out, seed=5, say=said.append) == page
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/metrics.jsonl")} == before
    assert sum("finished before" in line for line in said) == 2


def played(run_dir):
    """Step to the sorted tasks of its training episodes."""
    found = {}
    for line in (run_dir / "episodes/train.jsonl").read_text().splitlines():
        record = json.loads(line)
        found.setdefault(record["step"], []).append(record["task_id"])
    return {step: sorted(tasks) for step, tasks in found.items()}
