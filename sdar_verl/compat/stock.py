"""verl's own entry points, as stock as they are."""

from __future__ import annotations

from omegaconf import DictConfig


def run_ppo(config: DictConfig) -> None:
    """verl's ``run_ppo`` with its own task runner; the trainer is chosen by ``trainer.v1.trainer_mode``."""
    from verl.trainer.main_ppo import TaskRunnerV1, run_ppo

    run_ppo(config, task_runner_class=TaskRunnerV1)


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
