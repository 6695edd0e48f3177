"""`sdar watch` on run folders at several moments: numbers, time left, warnings, and what is no run."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from sdar_verl.cli.main import main
from sdar_verl.evaluation.jsonl import JsonlWriter
from sdar_verl.guards import Finding, to_line
from sdar_verl.live import clock, frame, line, look, spark
from sdar_verl.report.run import ReportError


def step_data(step: int) -> dict[str, float]:
    data = {"episode/success_rate": step / 10, "episode/reward_mean": float(step), "sdar/gap_mean": -0.25}
    data |= {"sdar/gate_mean": 0.4, "timing_s/step": 10.0, "timing_s/gen": 6.0, "timing_s/update_actor": 3.0}
    data["actor/perf/cpu_memory_used_gb"] = 7.5
    return data | ({"val/success_rate": 0.3, "timing_s/testing": 8.0} if step == 2 else {})


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "sdar-lab"
    folder.mkdir()
    config = {"trainer": {"total_training_steps": 10}, "sdar": {"method": "sdar"}}
    (folder / "manifest.json").write_text(json.dumps({"config": config}))
    return folder


def write(run, *steps):
    with JsonlWriter(run / "metrics.jsonl") as writer:
        for step in steps:
            writer.write({"step": step, "data": step_data(step) if step else {"val/success_rate": 0.1}})


def shown(view):
    console = Console(file=io.StringIO(), width=110)
    console.print(frame(view))
    return console.file.getvalue()


def test_a_run_in_the_middle(run):
    write(run, 0, 1, 2, 3, 4)
    view = look(run)
    assert (view.step, view.total, view.finished) == (4, 10, False)
    assert view.eta == pytest.approx(6 * (10 + 8 / 4))
    text = shown(view)
    for part in (
        "sdar-lab (sdar)",
        "step 4 of 10",
        "about 1 min 12 s left",
        "12.0 s a step",
        "40.0%",
        "25.0%",
        "-0.2500",
    ):
        assert part in text
    for part in ("30.0% (step 2)", "rollout 6.0 s, actor update 3.0 s", "host 7.5 GB", "no warnings", "so far"):
        assert part in text
    assert line(view).startswith("step 4/10; success, training 40.0%; reward 4.000; gap, nats -0.2500; gate 0.400;")


def test_a_run_that_only_starts_and_one_that_is_done(run):
    assert "starting" in shown(look(run)) and not look(run).finished
    write(run, 0)
    assert "step 0 of 10" in shown(look(run)) and look(run).eta is None
    write(run, *range(1, 11))
    assert look(run).finished and "finished" in shown(look(run))


def test_guards_silence_and_failures_are_warned_of(run):
    write(run, 1, 2, 3)
    with JsonlWriter(run / "guards.jsonl") as writer:
        writer.write(to_line(Finding(2, "zero_advantage", "warn", 1.0, 0.9, "no signal")))
        writer.write(to_line(Finding(3, "kl_blowup", "stop", 9.0, 1.0, "far away")))
    view = look(run)
    assert view.stopped and view.finished
    assert "stopped by a guard" in shown(view)
    assert "guard kl_blowup, step 3: far away" in shown(view) and "guard zero_advantage, step 2" in shown(view)
    write(run, 4)  # it was resumed
    assert not look(run).stopped
    assert look(run, now=time.time() + 3600).silent
    assert "is the run still going?" in shown(look(run, now=time.time() + 3600))
    assert not look(run, now=time.time() + 60).silent


def test_no_run_is_refused(tmp_path, capsys):
    with pytest.raises(ReportError, match="it is no run folder"):
        look(tmp_path)
    assert main(["watch", str(tmp_path / "none"), "--once"]) == 1
    assert "there is no run folder" in capsys.readouterr().err
    assert main(["watch", str(tmp_path), "--every", "0"]) == 1


def test_without_a_terminal_a_line_a_step_is_printed_until_the_end(run):
    write(run, 1)
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'envs'}"}
    command = [sys.executable, "-m", "sdar_verl.cli.main", "watch", str(run), "--every", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout.readline().startswith("step 1/10")
        write(run, 2)
        assert child.stdout.readline().startswith("step 2/10")
        write(run, 10)
        assert child.stdout.readline().startswith("step 10/10")
        assert child.stdout.read() == "" and child.wait(30) == 0


def test_small_pictures_of_numbers():
    assert spark([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert spark([2, 2]) == "▄▄" and spark([]) == "" and len(spark(range(100), 30)) == 30
    assert [clock(s) for s in (12, 200, 7500)] == ["12 s", "3 min 20 s", "2 h 05 min"]
