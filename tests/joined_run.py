"""A run that joins a cluster, with verl's own `run_ppo` and a task in the place of the training.

Usage: ``python joined_run.py RUN_DIR RESULT NNODES``. RESULT is what each node says, asked from within the task runner.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import ray
from hydra import compose, initialize_config_module

os.environ["VERL_PLATFORM"] = "cpu"
import sdar_verl.launch
import sdar_verl.prepare
import sdar_verl.train
from sdar_verl.compat import stock
from sdar_verl.errors import SdarError


def node() -> dict:
    import verl  # noqa: F401 - loads the plugin by its entry point

    return {
        "node": ray.get_runtime_context().get_node_id(),
        "platform": os.environ.get("VERL_PLATFORM"),
        "plugin": "sdar_verl.plugin" in sys.modules,
    }


@ray.remote(num_cpus=0)
class Runner:
    def run(self, config) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        where = [NodeAffinitySchedulingStrategy(n["NodeID"], soft=False) for n in ray.nodes() if n["Alive"]]
        task = ray.remote(num_cpus=0)(node)
        said = ray.get([task.options(scheduling_strategy=place).remote() for place in where])
        Path(config.sdar.result).write_text(json.dumps(said))


def run_ppo(config, after_ray=None) -> None:
    from verl.trainer.main_ppo import run_ppo

    run_ppo(config, task_runner_class=Runner)


def main() -> int:
    run_dir, result, nnodes = sys.argv[1:]
    stock.run_ppo = run_ppo
    sdar_verl.prepare.prepare = lambda config: None
    overrides = ["platform=cpu", f"sdar.run_dir={run_dir}", f"trainer.nnodes={nnodes}", f"+sdar.result={result}"]
    with initialize_config_module("sdar_verl.config", version_base=None):
        config = compose("sdar", overrides)
    try:
        sdar_verl.launch.launch(config)
    except SdarError as error:
        print(f"sdar: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
