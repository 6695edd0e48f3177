"""A comparison as real processes, with a small stand-in for the training: order, failures, kills, and going on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sdar_verl.compare import state
from sdar_verl.compare.pack import pack, unpacked
from sdar_verl.compare.runner import failures, run_sweep
from sdar_verl.compare.sweep import Arm, Sweep
from sdar_verl.errors import ConfigError
from sdar_verl.runs.state import hold

# Writes what a training writes, one line a step; with checkpoints it goes on after the last of them.
TRAINING = """
import json, pathlib, sys, time, zipfile
run, steps, pause = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
saves, fails = sys.argv[4:]
checkpoints = run / "checkpoints"
done = max([int(p.name.split("_")[-1]) for p in checkpoints.glob("global_step_*")], default=-1)
with open(run.parents[1] / "started", "a") as file:
    file.write(f"{run.parent.name}/{run.name} after {done}\\n")
kept = (run / "metrics.jsonl").read_text().splitlines()[: done + 1] if done >= 0 else []
(run / "metrics.jsonl").write_text("".join(line + "\\n" for line in kept))
for step in range(done + 1, steps + 1):
    if step == 2:
        time.sleep(pause)
    if fails == str(step):
        raise SystemExit("the reason")
    data = {"val/success_rate": 0.25} if step in (0, steps) else {}
    data |= {"timing_s/step": 2.0} if step else {}
    if saves == "yes" and step:
        folder = checkpoints / f"global_step_{step}"
        (folder / "actor").mkdir(parents=True)
        (folder / "actor" / "weights").write_text("w")
        with zipfile.ZipFile(folder / "data.pt", "w") as file:
            file.writestr("x", "x")
    with open(run / "metrics.jsonl", "a") as file:  # after the checkpoint, as a training does
        file.write(json.dumps({"step": step, "data": data}) + "\\n")
if fails == "guard":
    raise SystemExit(3)
"""
STEPS = 4
DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_compare_run import SWEEP, training
from sdar_verl.compare.runner import run_sweep
command = training(pause=600, saves=sys.argv[2])
run_sweep(SWEEP, Path(sys.argv[1]), say=lambda line: print(line, flush=True), command=command)
"""
COMMON = (f"trainer.total_training_steps={STEPS}", "trainer.test_freq=4")
SWEEP = Sweep((Arm("grpo", ("method=grpo",)), Arm("sdar", ("method=sdar",))), (0, 1), COMMON, about="a trial")


def training(pause=0.0, saves="no", fails=None):
    """Command lines of the stand-in.

    `pause` is before step 2 of the arm sdar; `fails` maps a run such as ``grpo/seed-0`` to the step it fails at.
    """

    def command(lines, run):
        assert f"sdar.run_dir='{run}'" in lines
        when = (fails or {}).get(f"{run.parent.name}/{run.name}", "")
        return [
            sys.executable,
            "-c",
            TRAINING,
            str(run),
            str(STEPS),
            str(pause if run.parent.name == "sdar" else 0),
            saves,
            str(when),
        ]

    return command


def started(out):
    return [line.split(" after ")[0] for line in (out / "runs/started").read_text().splitlines()]


def test_runs_are_interleaved_over_seeds_and_kept(tmp_path):
    out, said = tmp_path / "a folder, with=signs", []
    found = run_sweep(SWEEP, out, say=said.append, command=training())
    order = ["grpo/seed-0", "sdar/seed-0", "grpo/seed-1", "sdar/seed-1"]
    assert started(out) == order and {own.status for own in found.runs.values()} == {"finished"}
    assert any("run 2 of 4: sdar, seed 0; about" in line and "left for 3 runs" in line for line in said)
    assert "grpo, seed 0: step 4/4, evaluation 25 %, 2.0 s" in said
    arm = json.loads((out / "runs/grpo/seed-1/arm.json").read_text())
    assert arm["arm"] == "grpo" and arm["seed"] == 1 and "sdar.distillation.enabled" in arm["changes"]
    said.clear()
    more = Sweep((*SWEEP.arms, Arm("sharp", ("sdar.distillation.beta=9",))), (0, 1, 2), COMMON)
    run_sweep(more, out, say=said.append, command=training())
    assert sum("finished before, kept" in line for line in said) == 4
    assert started(out) == [*order, "sharp/seed-0", "sharp/seed-1", "grpo/seed-2", "sdar/seed-2", "sharp/seed-2"]


def test_a_packed_comparison_goes_on_elsewhere(tmp_path):
    run_sweep(SWEEP, tmp_path / "out", say=lambda line: None, command=training())
    pack(tmp_path / "out", tmp_path / "out.tar.gz")
    with unpacked([str(tmp_path / "out.tar.gz")]) as (folder,):
        shutil.copytree(folder, tmp_path / "elsewhere")
    more = replace(SWEEP, seeds=(0, 1, 2))
    found = run_sweep(more, tmp_path / "elsewhere", say=lambda line: None, command=training())
    assert started(tmp_path / "elsewhere") == ["grpo/seed-2", "sdar/seed-2"]
    assert {own.status for own in found.runs.values()} == {"finished"} and len(found.runs) == 6


def test_a_failure_stops_nothing_else_unless_asked_and_is_tried_again(tmp_path):
    said = []
    found = run_sweep(
        SWEEP, tmp_path, say=said.append, command=training(fails={"grpo/seed-0": 2, "sdar/seed-1": "guard"})
    )
    assert [own.status for own in found.runs.values()] == ["failed", "finished", "finished", "stopped"]
    (line,) = failures(found, ["grpo", "sdar"])
    assert line.startswith("grpo, seed 0: training ended with status 1") and any("the reason" in text for text in said)
    again = run_sweep(SWEEP, tmp_path, say=said.append, command=training())
    assert [own.status for own in again.runs.values()] == ["finished", "finished", "finished", "stopped"]
    assert not failures(again, ["grpo", "sdar"]) and started(tmp_path)[4:] == ["grpo/seed-0"]

    asked = run_sweep(
        SWEEP, tmp_path / "asked", say=said.append, command=training(fails={"sdar/seed-0": 1}), stop_on_failure=True
    )
    assert [own.status for own in asked.runs.values()] == ["finished", "failed", "planned", "planned"]


@pytest.mark.parametrize("saves", ["no", "yes"])
def test_a_killed_comparison_goes_on_where_it_was(tmp_path, saves):
    out = tmp_path / "out"
    code = DRIVER.format(here=str(Path(__file__).parent))
    driver = subprocess.Popen([sys.executable, "-c", code, str(out), saves], stdout=subprocess.PIPE, text=True)
    try:
        for line in driver.stdout:
            if line.startswith("sdar, seed 0: step 1/4"):
                break
        assert driver.poll() is None
    finally:
        driver.kill()  # and the kernel then ends its training
        status = driver.wait(60)
        driver.stdout.close()
    assert status == -signal.SIGKILL
    assert state.read(out).runs["runs/sdar/seed-0"].status == "planned"
    first = (out / "runs/grpo/seed-0/metrics.jsonl").stat().st_mtime_ns

    said = []
    found = run_sweep(SWEEP, out, say=said.append, command=training(saves=saves))
    assert {own.status for own in found.runs.values()} == {"finished"}
    assert (out / "runs/grpo/seed-0/metrics.jsonl").stat().st_mtime_ns == first
    assert "grpo, seed 0: finished before, kept" in said
    assert started(out) == ["grpo/seed-0", "sdar/seed-0", "sdar/seed-0", "grpo/seed-1", "sdar/seed-1"]
    lines = [json.loads(line) for line in (out / "runs/sdar/seed-0/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    second = (out / "runs/started").read_text().splitlines()[2]
    if saves == "yes":
        assert int(second.rpartition(" ")[2]) >= 1 and any("goes on from step" in line for line in said)
        assert "sdar, seed 0: step 1/4, 2.0 s" not in said  # steps before the checkpoint are not said again
    else:
        assert second.endswith("after -1")


def test_a_run_whose_end_was_not_noted_is_not_made_again(tmp_path):
    run_sweep(SWEEP, tmp_path, say=lambda line: None, command=training())
    saved = json.loads((tmp_path / state.FILE).read_text())
    saved["runs"]["runs/sdar/seed-1"]["status"] = "planned"
    (tmp_path / state.FILE).write_text(json.dumps(saved))
    said = []
    found = run_sweep(SWEEP, tmp_path, say=said.append, command=training())
    assert found.runs["runs/sdar/seed-1"].done and "sdar, seed 1: was complete, kept" in said
    assert len(started(tmp_path)) == 4


def test_a_folder_is_for_one_comparison(tmp_path):
    run_sweep(SWEEP, tmp_path / "out", say=lambda line: None, command=training())
    other = Sweep((Arm("sdar", ("method=sdar", "sdar.distillation.beta=2")),), (0,), COMMON)
    with pytest.raises(ConfigError, match="another arm sdar"):
        run_sweep(other, tmp_path / "out", command=training())
    longer = Sweep(SWEEP.arms, (0,), (*COMMON, "data.train_batch_size=3"))
    with pytest.raises(ConfigError, match="another common overrides"):
        run_sweep(longer, tmp_path / "out", command=training())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep")
    with pytest.raises(ConfigError, match="choose another --out"):
        run_sweep(SWEEP, tmp_path / "mine", command=training())
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]


def test_two_calls_do_not_work_in_one_folder(tmp_path):
    said = []
    with hold(tmp_path, said.append):
        began = time.monotonic()
        with pytest.raises(ConfigError, match="another call is at work"), hold(tmp_path, said.append, seconds=0.5):
            pass
        assert time.monotonic() - began < 30 and len(said) == 1
    with hold(tmp_path, said.append, seconds=0):
        pass
