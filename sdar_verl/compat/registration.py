"""What is registered with verl, and where.

verl keeps its registries in heavy modules. A hook that runs right after such a module's import registers ours, so
that ``import verl`` stays as light as it was.
"""

from __future__ import annotations

import os
from types import ModuleType

import wrapt

from sdar_verl.errors import RegistrationError

_installed = False


def on_cpu() -> bool:
    """True where the run asked for the CPU platform (``VERL_PLATFORM=cpu``, set by ``trainer.device=cpu``)."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def install() -> None:
    """Register the platform now and everything else when verl imports the module concerned. Idempotent."""
    global _installed
    if _installed:
        return
    wrapt.register_post_import_hook(_trainer, "verl.trainer.ppo.v1.trainer_base")
    wrapt.register_post_import_hook(_agent_loops, "verl.experimental.agent_loop.agent_loop")
    if on_cpu():
        from sdar_verl.compat.cpu import vllm_distribution
        from sdar_verl.compat.cpu.platform import register_platform

        vllm_distribution.install()
        register_platform()
        wrapt.register_post_import_hook(_cpu_engine, "verl.workers.engine.fsdp.transformer_impl")
        wrapt.register_post_import_hook(_cpu_rollout, "verl.workers.rollout.base")
        wrapt.register_post_import_hook(_cpu_replica, "verl.workers.rollout.replica")
    _installed = True


def _trainer(module: ModuleType) -> None:
    from sdar_verl.plugin import TRAINER_MODE

    # verl looks the class up by calling registry[name](config=...): a function that imports on first use is enough
    # for that, but verl's own helpers want a class, so the class is imported once its base exists.
    module.TRAINER_REGISTRY[TRAINER_MODE] = _LazyTrainer()


class _LazyTrainer:
    """Stands in the trainer registry until the trainer is built; the real class needs all of verl imported."""

    __name__ = "SdarTrainer"

    def __call__(self, *args, **kwargs):
        from sdar_verl.compat.trainer import SdarTrainer

        return SdarTrainer(*args, **kwargs)


def _agent_loops(module: ModuleType) -> None:
    from sdar_verl.plugin import AGENT_LOOPS

    for name in AGENT_LOOPS:
        module._agent_loop_registry[name] = {
            "_target_": "sdar_verl.compat.agent_loop.EnvAgentLoop",
            "rows": name.removeprefix("sdar_"),
        }


def _cpu_engine(module: ModuleType) -> None:
    from sdar_verl.compat.cpu.engine import register_engine

    register_engine(module)


def _cpu_rollout(module: ModuleType) -> None:
    from sdar_verl.plugin import CPU_ROLLOUT

    module._ROLLOUT_REGISTRY[(CPU_ROLLOUT, "async")] = "sdar_verl.compat.cpu.rollout.CpuServerAdapter"


def _cpu_replica(module: ModuleType) -> None:
    from sdar_verl.plugin import CPU_ROLLOUT

    def load():
        from sdar_verl.compat.cpu.rollout import CpuReplica

        return CpuReplica

    module.RolloutReplicaRegistry.register(CPU_ROLLOUT, load)


def verify() -> None:
    """Raise `RegistrationError` naming every registration that is missing in this process."""
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
    from verl.plugin.platform import PlatformRegistry
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    from sdar_verl.plugin import AGENT_LOOPS, CPU_ROLLOUT, TRAINER_MODE

    missing = []
    if TRAINER_MODE not in TRAINER_REGISTRY:
        missing.append(f"trainer {TRAINER_MODE!r}")
    missing += [f"agent loop {name!r}" for name in AGENT_LOOPS if name not in _agent_loop_registry]
    if on_cpu():
        from verl.workers.rollout.base import _ROLLOUT_REGISTRY
        from verl.workers.rollout.replica import RolloutReplicaRegistry

        if PlatformRegistry.get("cpu") is None:
            missing.append("platform 'cpu'")
        if (CPU_ROLLOUT, "async") not in _ROLLOUT_REGISTRY or CPU_ROLLOUT not in RolloutReplicaRegistry._registry:
            missing.append(f"rollout {CPU_ROLLOUT!r}")
    if missing:
        raise RegistrationError(
            f"not registered with verl in process {os.getpid()}: {', '.join(missing)}. Was verl imported before "
            "VERL_PLATFORM was set, or is another copy of verl first on the path?"
        )
