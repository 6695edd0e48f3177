"""The SkyPilot file against what SkyPilot 0.14's schema of tasks knows (the package is large), and our names."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import supervise
import yaml

from sdar_verl.errors import UNREACHABLE_EXIT_CODE

ROOT = Path(__file__).parents[2]
TASK = yaml.safe_load((ROOT / "scripts" / "aws" / "sky.yaml").read_text())
TASK_KEYS = {
    "name", "workdir", "num_nodes", "resources", "file_mounts", "setup", "run", "envs", "secrets", "service", "pool",
    "config", "volumes", "inputs", "outputs", "event_callback",
}  # fmt: skip
RESOURCE_KEYS = {
    "infra", "cloud", "region", "zone", "accelerators", "accelerator_args", "cpus", "memory", "instance_type",
    "use_spot", "disk_size", "disk_tier", "network_tier", "image_id", "labels", "autostop", "any_of", "ordered",
    "job_recovery", "local_disk", "max_hourly_cost", "priority_class", "volumes",
}  # fmt: skip


def test_it_has_only_keys_that_skypilot_knows():
    assert set(TASK) <= TASK_KEYS and set(TASK["resources"]) <= RESOURCE_KEYS
    recovery = TASK["resources"]["job_recovery"]
    assert set(recovery) <= {"strategy", "max_restarts_on_errors", "recover_on_exit_codes"}
    assert recovery["strategy"] == "FAILOVER", "there is no next region"
    cloud, _, region = TASK["resources"]["infra"].partition("/")
    assert cloud == "aws" and region, "a bucket lies in one region, and traffic to another costs"
    assert recovery["recover_on_exit_codes"] == [supervise.INTERRUPTED]
    assert UNREACHABLE_EXIT_CODE not in recovery["recover_on_exit_codes"], "those are started again without end"
    assert recovery["max_restarts_on_errors"] > 0, "what the supervisor gave up is tried again, but not for ever"


@pytest.mark.parametrize(
    ("codes", "limits", "left"),
    [((69, 75, 69, 0), {}, 0), ((69, 69, 69), {"SUPERVISE_UNREACHABLE": "2"}, 69), ((75, 2), {}, 2)],
)
def test_the_supervisor_starts_the_run_again_and_decides_what_skypilot_sees(tmp_path, codes, limits, left):
    """The task's own `run`, with a recipe that ends as it is told to."""
    (tmp_path / "scripts").mkdir()
    for name in ("supervise.sh", "supervise.py"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    (tmp_path / "codes").write_text("\n".join(map(str, codes)) + "\n")
    (tmp_path / "recipe.sh").write_text('echo "$@" >> starts; exit $(sed -n "$(wc -l < starts)p" codes)\n')
    given = {"BUCKET": "b", "RUN": "r", "DATA": "d", "RECIPE": "recipe.sh", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", TASK["run"]], cwd=tmp_path, env={**os.environ, "SUPERVISE_WAIT": "0", **given, **limits},
        capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == left, done.stderr
    starts = (tmp_path / "starts").read_text().splitlines()
    assert len(starts) == (int(limits["SUPERVISE_UNREACHABLE"]) if limits else len(codes))
    for override in (f"{supervise.CHECKPOINTS}=s3://b/runs/r/checkpoints", *supervise.SPOT):
        assert override in starts[0].split()


def test_it_calls_what_is_there():
    for script in ("setup", "run"):
        assert subprocess.run(["bash", "-n", "-c", TASK[script]]).returncode == 0
    assert (ROOT / TASK["envs"]["RECIPE"]).is_file()
    for name in (supervise.RUN_DIR, supervise.CHECKPOINTS):
        assert f"{name}=" in TASK["run"]
    assert all(override in TASK["run"] for override in supervise.SPOT)
    for name in supervise.DATA_VARIABLES:
        assert f"{name}=" in TASK["run"]
    used = {word for word in ("BUCKET", "RUN", "DATA", "RECIPE") if f"${word}" in TASK["run"] + TASK["setup"]}
    assert used == set(TASK["envs"])
