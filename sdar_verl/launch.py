"""From a composed configuration to a finished run, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
from omegaconf import DictConfig, OmegaConf, open_dict

from sdar_verl import gpu_machine, joined, leftovers
from sdar_verl.forks.starter import COMMAND, PREFIX
from sdar_verl.spot import SpotStop
from sdar_verl.spot.ending import Ending
from sdar_verl.stop_signals import terminate_like_ctrl_c
from sdar_verl.storage.settings import SpotSettings

_STARTED = "started"  # an empty file, as old as its run


def launch(config: DictConfig) -> None:
    """Train with `config`; the environment variable ``VERL_PLATFORM`` is set already.

    Ray is started by the run and stopped with it, unless ``ray_kwargs.ray_init.address`` names a cluster to join. All
    temporary files (Ray's session, sockets, the engine's libraries) live in one folder that goes with the run.
    """
    config = OmegaConf.create(OmegaConf.to_container(config, resolve=False))
    _absolute_paths(config)
    with _scratch(Path(config.sdar.run_dir)) as scratch, terminate_like_ctrl_c(), ExitStack() as stack:
        _ray_settings(config, scratch)
        from sdar_verl import plugin
        from sdar_verl.compat import stock
        from sdar_verl.prepare import prepare

        plugin.verify()
        _settle(config)
        if config.trainer.device != "cpu" and config.ray_kwargs.ray_init.address == "local":
            stack.enter_context(gpu_machine.alone())
        prepare(config)
        if config.ray_kwargs.ray_init.address != "local":
            joined.check(config)
        spot = Ending(Path(config.sdar.run_dir), SpotSettings(**config.sdar.spot))
        stack.enter_context(spot.watched())
        try:
            stock.run_ppo(config, after_ray=spot.take_signals)
        except SystemExit as end:
            if end.code == signal.SIGTERM:  # Ray puts a handler of its own in the place of ours
                if config.sdar.spot.sigterm:
                    raise SpotStop("SIGTERM, before anything was trained") from None
                raise KeyboardInterrupt(f"signal {end.code}") from None
            raise
        finally:
            stock.stop_ray(psutil.Process().children(recursive=True))


def _absolute_paths(config: DictConfig) -> None:
    """Workers may run in other folders than the driver."""
    config.sdar.run_dir = str(Path(config.sdar.run_dir).expanduser().absolute())
    remote = config.sdar.teacher.remote
    if remote.token_file is not None:
        remote.token_file = str(Path(remote.token_file).expanduser().absolute())


def _settle(config: DictConfig) -> None:
    """Compute what a preset computes with a resolver of ours, which verl's processes do not know."""
    actor = config.actor_rollout_ref.actor
    actor.use_kl_loss = actor.use_kl_loss


def _ray_settings(config: DictConfig, scratch: Path) -> None:
    init = config.ray_kwargs.ray_init
    passed_on = ("VERL_PLATFORM", "ALFWORLD_DATA", "WEBSHOP_DATA", "SDAR_WEBSHOP_CACHE", "SEARCH_QA_DATA")
    variables = {name: os.environ[name] for name in passed_on if name in os.environ}
    with open_dict(config):
        if init.get("address") == "local":
            init["_temp_dir"] = str(scratch / "ray")
            init["include_dashboard"] = False
            variables["TMPDIR"] = str(scratch)
            if command := os.environ.get(COMMAND):
                variables[COMMAND] = init["runtime_env"]["py_executable"] = command
        else:  # a joined cluster has its own resources
            for name in ("num_cpus", "num_gpus"):
                init.pop(name, None)
            # what `ray job submit --runtime-env-json` sets comes to the workers anyway, and Ray refuses it twice
            submitted = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env") or {}
            variables = {k: v for k, v in variables.items() if k not in (submitted.get("env_vars") or {})}
        init["runtime_env"]["env_vars"] = {**dict(init.runtime_env.get("env_vars") or {}), **variables}


@contextmanager
def _scratch(run_dir: Path) -> Iterator[Path]:
    """A folder for temporary files, short enough for socket names; of dead runs the leftovers are removed."""
    root = Path(tempfile.gettempdir())
    for old in root.glob(f"{PREFIX}[0-9]*-*"):
        pid = old.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with suppress(FileNotFoundError):  # another start was quicker
                leftovers.sweep((old / _STARTED).stat().st_mtime)
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=root))
    (folder / _STARTED).touch()  # the folder's own times change with every file in it
    started = time.time()
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    try:
        yield folder
    except SpotStop:  # nothing went wrong, and there is no time for a copy
        raise
    except BaseException:
        logs = folder / "ray" / "session_latest" / "logs"
        if logs.is_dir():
            with suppress(OSError):  # shutil.Error too: the run's own error counts
                shutil.copytree(logs, run_dir / "ray-logs", dirs_exist_ok=True, ignore_dangling_symlinks=True)
        raise
    finally:
        if before is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = before
        tempfile.tempdir = None
        shutil.rmtree(folder, ignore_errors=True)
        leftovers.sweep(started)
