"""Joining a Ray cluster of two nodes (both on this machine) through `RAY_ADDRESS`, as `ray job submit` sets it."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import transfer_queue.interface
from omegaconf import OmegaConf

from sdar_verl.errors import ConfigError
from sdar_verl.joined import TRANSFER_QUEUE, own, require_alike
from sdar_verl.launch import _ray_settings

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


@pytest.mark.slow
def test_a_cluster_where_another_run_is_at_work_is_refused(cluster, tmp_path):
    """Two runs would share TransferQueue's one controller; its name is TransferQueue's."""
    code = (
        "import ray, sys, time; from sdar_verl.joined import TRANSFER_QUEUE as own;"
        "ray.init(address=sys.argv[1], logging_level='warning');"
        "actor = ray.remote(num_cpus=0)(type('Queue', (), {})).options(name=own[0], namespace=own[1]).remote();"
        "ray.get(actor.__ray_ready__.remote()); print('there', flush=True); time.sleep(600)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, cluster.address], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "there\n"
        done = run(cluster, tmp_path, nnodes=2)
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    assert done.returncode == 2 and "another run is at work in this Ray cluster" in done.stdout, done.stdout
    source = inspect.getsource(transfer_queue.interface)
    assert f'ray.get_actor("{TRANSFER_QUEUE[0]}", namespace="{TRANSFER_QUEUE[1]}")' in source


def test_what_the_submitted_job_sets_is_not_set_again(monkeypatch, tmp_path):
    """Ray refuses a variable that both `ray job submit` and the run's own `ray.init` name."""
    monkeypatch.setenv("ALFWORLD_DATA", "/shared/games")
    monkeypatch.setenv("WEBSHOP_DATA", "/shared/shop")
    submitted = {"runtime_env": {"env_vars": {"ALFWORLD_DATA": "/shared/games"}}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(submitted))
    config = OmegaConf.create({"ray_kwargs": {"ray_init": {"address": "auto", "num_cpus": 3, "runtime_env": {}}}})
    _ray_settings(config, tmp_path)
    own = config.ray_kwargs.ray_init.runtime_env.env_vars
    assert own["WEBSHOP_DATA"] == "/shared/shop" and "ALFWORLD_DATA" not in own


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
