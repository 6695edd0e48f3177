"""verl's own entry points, as stock as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psutil
from omegaconf import DictConfig

RAY_STARTS = 3  # a busy machine is too slow for Ray's fixed 30 s now and then, hardly ever three times
_TOO_SLOW = "timed out during startup"  # Ray raises a plain Exception


def run_ppo(config: DictConfig, after_ray: Callable[[], None] = lambda: None) -> None:
    """verl's ``run_ppo`` with its own task runner; the trainer is chosen by ``trainer.v1.trainer_mode``.

    `after_ray` is called in this process once Ray has started, before the task runner does. A Ray that did not come up
    within its time is stopped and started again, `RAY_STARTS` times in all; nothing was trained by then.
    """
    from verl.trainer.main_ppo import TaskRunnerV1, run_ppo

    class Runner:
        @staticmethod
        def options(**options: Any) -> Any:
            after_ray()
            return TaskRunnerV1.options(**options)

        @staticmethod
        def remote() -> Any:
            after_ray()
            return TaskRunnerV1.remote()

    for start in range(1, RAY_STARTS + 1):
        before = set(psutil.Process().children(recursive=True))
        try:
            return run_ppo(config, task_runner_class=Runner)
        except Exception as error:
            if _TOO_SLOW not in str(error) or start == RAY_STARTS:
                raise
            print(f"[sdar] Ray did not start within its 30 s (start {start} of {RAY_STARTS}); starting it again")
            _end(set(psutil.Process().children(recursive=True)) - before)


def _end(processes: set[psutil.Process]) -> None:
    """Ray stops nothing of a start that failed before this process ends."""
    import ray

    ray.shutdown()
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
    psutil.wait_procs(processes, timeout=15)


def validate(config: DictConfig) -> None:
    """verl's own checks of a configuration."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config
    from verl.utils.device import auto_set_device

    auto_set_device(config)
    validate_config(
        config=config,
        use_reference_policy=need_reference_policy(config),
        use_critic=need_critic(config),
    )
