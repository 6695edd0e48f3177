"""verl's own entry points, as stock as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig


def run_ppo(config: DictConfig, after_ray: Callable[[], None] = lambda: None) -> None:
    """verl's ``run_ppo`` with its own task runner; the trainer is chosen by ``trainer.v1.trainer_mode``.

    `after_ray` is called in this process once Ray has started, before the task runner does.
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

    run_ppo(config, task_runner_class=Runner)


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
