"""verl's own entry points, as stock as they are."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

import psutil
from omegaconf import DictConfig

SHUTDOWN_SECONDS = 15.0
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
            # Ray stops nothing of a start that failed before this process ends
            stop_ray(set(psutil.Process().children(recursive=True)) - before, grace=0)


def stop_ray(processes: Collection[psutil.Process], grace: float = SHUTDOWN_SECONDS) -> None:
    """Shut Ray down, which returns while some of its `processes` still live and write, and wait for them.

    Those that still live `grace` seconds later are killed.
    """
    import ray

    ray.shutdown()
    _, alive = psutil.wait_procs(processes, timeout=grace)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=SHUTDOWN_SECONDS)


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
