"""Main entry: ``python -m sdar_verl.train [overrides]`` (the same as ``sdar train``)."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from sdar_verl.errors import UNREACHABLE_EXIT_CODE, ConfigError, RegistrationError, SdarError, Unreachable
from sdar_verl.forks.starter import COMMAND, become_forked
from sdar_verl.guards import EXIT_CODE, GuardStop
from sdar_verl.spot import EXIT_CODE as SPOT_EXIT_CODE
from sdar_verl.spot import SpotStop


def verl_config_dir() -> str:
    """Hydra search path of verl's configuration, found without importing verl (its platform is not chosen yet)."""
    spec = importlib.util.find_spec("verl")
    if spec is None or spec.origin is None:
        raise RegistrationError("verl is not installed; run scripts/setup.sh")
    return f"file://{Path(spec.origin).parent / 'trainer' / 'config'}"


OmegaConf.register_new_resolver("sdar.verl_config_dir", verl_config_dir, replace=True)
OmegaConf.register_new_resolver("sdar.equal", lambda one, other: one == other, replace=True)


def run(config: DictConfig) -> None:
    """Check everything that can be checked beforehand, then train."""
    if config.trainer.device == "cpu":
        os.environ["VERL_PLATFORM"] = "cpu"  # before the first import of verl, which caches the platform
    if _forks(config):
        become_forked(["-m", "sdar_verl.train", *sys.argv[1:]])
    from sdar_verl.launch import launch

    launch(config)


def _forks(config: DictConfig) -> bool:
    """Whether this process is to be replaced by one whose libraries are imported already.

    Raises:
        ConfigError: asked for where it cannot work.
    """
    if config.sdar.forked_workers and config.trainer.device != "cpu":
        raise ConfigError(
            f"sdar.forked_workers=true needs platform=cpu, but trainer.device is {config.trainer.device}: a process "
            "that has touched a GPU cannot be forked"
        )
    wanted = config.sdar.forked_workers and config.ray_kwargs.ray_init.address == "local"
    if not wanted or COMMAND in os.environ or sys.platform != "linux":
        return False
    return HydraConfig.get().mode == RunMode.RUN  # several runs of one call share its process


@hydra.main(config_path="config", config_name="sdar", version_base=None)
def _main(config: DictConfig) -> None:
    try:
        run(config)
    except GuardStop as stop:
        # from a Ray task it comes with the task's traceback around it
        print(f"sdar: stopped by a guard: {getattr(stop, 'cause', stop)}", file=sys.stderr)
        raise SystemExit(EXIT_CODE) from None
    except SpotStop as stop:
        print(f"sdar: stopped for its machine's sake: {getattr(stop, 'cause', stop)}", file=sys.stderr)
        raise SystemExit(SPOT_EXIT_CODE) from None
    except Unreachable as error:
        reason = getattr(error, "cause", error)
        print(f"sdar: cannot go on now, start it again later: {reason}", file=sys.stderr)
        raise SystemExit(UNREACHABLE_EXIT_CODE) from None
    except SdarError as error:  # caught in here: Hydra prints a traceback for whatever leaves this function
        print(f"sdar: {type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt as stop:
        why = str(stop) or "Ctrl-C"
        print(f"sdar: stopped ({why}); the same command goes on from the last checkpoint", file=sys.stderr)
        raise SystemExit(130) from None


def main() -> None:
    """Console entry; errors that a user can act upon are printed without a traceback and end with code 2.

    A run that is stopped by Ctrl-C or SIGTERM ends with code 130, one that a guard stops with code 3, and one
    whose machine goes away (``sdar.spot``) with code 75: start the same command again. Where S3 or the teacher could
    not be reached it is code 69: the same, after a while.
    """
    _main()


if __name__ == "__main__":
    main()
