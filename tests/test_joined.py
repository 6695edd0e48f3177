"""Joining a Ray cluster of two nodes (both on this machine) through `RAY_ADDRESS`, as `ray job submit` sets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdar_verl.errors import ConfigError
from sdar_verl.joined import own, require_alike

PROGRAM = Path(__file__).with_name("joined_run.py")


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1, num_gpus=1)
    yield made
    made.shutdown()


def run(cluster, tmp_path, nnodes: int) -> subprocess.CompletedProcess:
    variables = {**os.environ, "RAY_ADDRESS": cluster.address, "VERL_PLATFORM": "cpu"}
    command = [sys.executable, PROGRAM, tmp_path / "run", tmp_path / "result", str(nnodes)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=400)


@pytest.mark.slow
def test_a_run_joins_both_nodes_and_leaves_them(cluster, tmp_path):
    done = run(cluster, tmp_path, nnodes=2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"joined the Ray cluster at {cluster.address}: 2 nodes, 2 GPUs" in done.stdout
    said = json.loads((tmp_path / "result").read_text())
    assert len({node["node"] for node in said}) == 2
    assert {node["platform"] for node in said} == {"cpu"}
    assert all(node["plugin"] for node in said), "the plugin is loaded on each node"
    assert not list((tmp_path / "run").glob("seen-by-all-nodes-*"))
    alive = [raylet for node in cluster.list_all_nodes() for raylet in node.all_processes["raylet"]]
    assert len(alive) == 2 and all(raylet.process.poll() is None for raylet in alive)


@pytest.mark.slow
def test_a_cluster_that_is_too_small_is_refused(cluster, tmp_path):
    done = run(cluster, tmp_path, nnodes=3)
    assert done.returncode == 2 and "has 2 GPUs, and trainer.nnodes x n_gpus_per_node are 3" in done.stdout


def test_nodes_must_be_alike_and_see_the_run(tmp_path):
    marker = tmp_path / "marker"
    marker.touch()
    here = own(str(marker))
    require_alike([here, here], here, "runs/x")
    other = {**here, "host": "b", "versions": {**here["versions"], "torch": "1.0"}}
    with pytest.raises(ConfigError, match=r"node b has other packages: torch 1.0 \(here .+\); install the same"):
        require_alike([here, other], here, "runs/x")
    blind = {**own(str(tmp_path / "elsewhere")), "host": "c"}
    with pytest.raises(ConfigError, match="node c does not see runs/x"):
        require_alike([here, blind], here, "runs/x")
