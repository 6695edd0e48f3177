"""Runs of a comparison side by side, as real processes: their shares of the machine, and that all end together."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from test_compare_run import SWEEP as ANYWHERE

from sdar_verl.compare import state
from sdar_verl.compare.composed import ArmPlan
from sdar_verl.compare.runner import run_sweep
from sdar_verl.compare.shares import shares
from sdar_verl.errors import ConfigError

SWEEP = replace(ANYWHERE, common=(*ANYWHERE.common, "platform=cpu"))
CORES = sorted(os.sched_getaffinity(0))
pytestmark = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores to share")

# Writes where it may run, then waits for as many others as it is told before it trains.
TRAINING = """
import json, os, pathlib, sys, time
run, together = pathlib.Path(sys.argv[1]), int(sys.argv[2])
here = run.parents[1] / "here"
here.mkdir(exist_ok=True)
said = {"cores": sorted(os.sched_getaffinity(0)), "pid": os.getpid()}
note = here / f"{run.parent.name}-{run.name}"
note.with_suffix(".part").write_text(json.dumps(said))
note.with_suffix(".part").rename(note.with_suffix(".json"))
end = time.monotonic() + 60
while len(list(here.glob("*.json"))) < together:
    time.sleep(0.02)
    if time.monotonic() > end:
        raise SystemExit("alone")
data = {"val/success_rate": 0.5, "timing_s/step": 1.0}
(run / "metrics.jsonl").write_text("".join(json.dumps({"step": step, "data": data}) + chr(10) for step in range(5)))
"""
DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_compare_jobs import SWEEP, training
from sdar_verl.compare.runner import run_sweep
run_sweep(SWEEP, Path(sys.argv[1]), jobs=2, say=lambda line: print(line, flush=True), command=training(99))
"""


def training(together):
    """Command lines of the stand-in."""
    return lambda lines, run: [sys.executable, "-c", TRAINING, str(run), str(together)]


def notes(out):
    return {path.stem: json.loads(path.read_text()) for path in (out / "runs/here").glob("*.json")}


def test_two_runs_at_a_time_each_on_its_own_cores(tmp_path):
    said = []
    found = run_sweep(SWEEP, tmp_path, jobs=2, say=said.append, command=training(2))
    assert {own.status for own in found.runs.values()} == {"finished"} and len(found.runs) == 4
    used = notes(tmp_path)
    first, second = used["grpo-seed-0"], used["sdar-seed-0"]  # the first two, which waited for each other
    assert sorted(first["cores"] + second["cores"]) == CORES
    assert {tuple(own["cores"]) for own in used.values()} == {tuple(first["cores"]), tuple(second["cores"])}
    assert state.read(tmp_path).runs == found.runs
    assert [line.split(":")[0] for line in said if line.startswith("run ")] == [f"run {n} of 4" for n in range(1, 5)]


def test_alone_a_run_has_the_whole_machine(tmp_path):
    run_sweep(SWEEP, tmp_path, say=lambda line: None, command=training(1))
    assert all(own["cores"] == CORES for own in notes(tmp_path).values())


def test_ctrl_c_ends_all_runs_at_work(tmp_path):
    code = DRIVER.format(here=str(Path(__file__).parent))
    driver = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background shells ignore it
    )
    try:
        end = time.monotonic() + 90
        while len(list((tmp_path / "runs/here").glob("*.json"))) < 2:
            assert driver.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        driver.send_signal(signal.SIGINT)
        _, error = driver.communicate(timeout=60)
    finally:
        driver.kill()
    assert driver.returncode == -signal.SIGINT and "KeyboardInterrupt" in error
    at_work = notes(tmp_path)
    assert len(at_work) == 2  # no other was begun
    assert not any(Path(f"/proc/{own['pid']}").exists() for own in at_work.values())
    assert {own.status for own in state.read(tmp_path).runs.values()} == {"planned"}


def test_one_failure_lets_the_others_end_and_begins_no_more(tmp_path):
    def command(lines, run):
        if run.parent.name == "grpo":
            return [sys.executable, "-c", "raise SystemExit('the reason')"]
        return training(1)(lines, run)

    found = run_sweep(SWEEP, tmp_path, jobs=2, say=lambda line: None, stop_on_failure=True, command=command)
    status = {key.removeprefix("runs/"): own.status for key, own in found.runs.items()}
    assert status["grpo/seed-0"] == "failed" and status["sdar/seed-0"] == "finished"
    assert status["sdar/seed-1"] == "planned"


def test_shares(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3, 5, 7, 8})
    cpu, gpu = ArmPlan(8, 2, "cpu", ()), ArmPlan(8, 2, "cuda", ())
    assert shares(2, {"a": cpu}) == [(2, 3), (5, 7, 8)] and shares(1, {"a": gpu}) == [None]
    with pytest.raises(ConfigError, match="needs platform=cpu, but trainer.device is cuda"):
        shares(2, {"a": cpu, "b": gpu})
    with pytest.raises(ConfigError, match="only 5 cores"):
        shares(6, {"a": cpu})


def test_too_many_jobs_start_nothing(tmp_path):
    with pytest.raises(ConfigError, match="cores to share"):
        run_sweep(SWEEP, tmp_path / "out", jobs=len(CORES) + 1, command=training(1))
    assert not (tmp_path / "out").exists()
