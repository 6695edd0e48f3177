"""The SkyPilot file against what SkyPilot 0.14's schema of tasks knows (the package is large), and our names."""

from __future__ import annotations

import subprocess
from pathlib import Path

import supervise
import yaml

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
    assert recovery["strategy"] in ("FAILOVER", "EAGER_NEXT_REGION")
    assert recovery["recover_on_exit_codes"] == [supervise.INTERRUPTED]


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
