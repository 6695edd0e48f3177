"""Every arm's configuration, composed before anything starts, so that the last arm cannot fail after a night."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdar_verl.compare.sweep import Arm, Sweep
from sdar_verl.config_diff import differences
from sdar_verl.errors import ConfigError, SdarError
from sdar_verl.methods import composed
from sdar_verl.quickstart import models
from sdar_verl.quickstart.plan import load_plan
from sdar_verl.redaction import check_secrets
from sdar_verl.runs import lab
from sdar_verl.runs.command import assignments, seeds
from sdar_verl.settings import Settings


@dataclass(frozen=True)
class ArmPlan:
    """What the composed configuration of an arm says.

    Attributes:
        steps: training steps of each run.
        test_freq: steps between two evaluations.
        device: what it runs on, ``cpu`` or ``cuda``.
        changes: keys that have another value than without the arm's overrides.
    """

    steps: int
    test_freq: int
    device: str
    changes: tuple[str, ...]


def base(sweep: Sweep, out: Path) -> list[str]:
    """Overrides that come before those of the comparison: of the lab, if it plays there."""
    if sweep.lab is None:
        return []
    plan = load_plan("tiny")
    own = lab.settings("alfworld", models.tiny(), out / "games", sweep.lab.panel, sweep.lab.seed) | {
        "trainer.total_training_steps": plan.steps,
        "trainer.test_freq": plan.every,
    }
    epochs = "trainer.total_epochs=${trainer.total_training_steps}"  # more than enough: steps end the run
    return ["platform=cpu", "+lab=tiny", *assignments(own), epochs]


def overrides(sweep: Sweep, out: Path, arm: Arm, seed: int) -> list[str]:
    """All overrides of one run."""
    own = seeds(seed) | {
        "sdar.run_dir": run_dir(out, arm, seed),
        "trainer.experiment_name": f"{arm.folder}-seed-{seed}",
        "trainer.resume_mode": "auto",
    }
    return [*base(sweep, out), *sweep.common, *arm.overrides, *assignments(own)]


def run_dir(out: Path, arm: Arm, seed: int) -> Path:
    """Where a run writes."""
    return out / "runs" / arm.folder / f"seed-{seed}"


def compose_arms(sweep: Sweep, out: Path) -> dict[str, ArmPlan]:
    """Compose and check the configuration of every arm; name of the arm to what it says.

    Raises:
        ConfigError: an arm does not compose, holds a secret or has settings that make no sense, does not say how long
            it trains, evaluates nothing, or evaluates something else than the first; the message names the arm.
    """
    seed, plans, first = sweep.seeds[0], {}, None
    plain = _compose("what all arms share", overrides(sweep, out, Arm("base", ()), seed))
    for arm in sweep.arms:
        config = _compose(f"arm {arm.name}", overrides(sweep, out, arm, seed))
        try:
            Settings.from_config(config)
        except SdarError as error:
            raise ConfigError(f"arm {arm.name}: {error}") from error
        evaluated = _evaluated(config)
        if first is not None and evaluated != first:
            raise ConfigError(
                f"arm {arm.name} evaluates another panel than {sweep.arms[0].name}: {evaluated} instead of {first}; "
                "numbers of different panels cannot be compared"
            )
        first = evaluated
        steps, every = _length(arm, config["trainer"])
        if sweep.until is not None and sweep.until < every:
            raise ConfigError(f"arm {arm.name}: nothing is evaluated until step {sweep.until}; the first is {every}")
        changes = tuple(differences(plain, config))
        plans[arm.name] = ArmPlan(steps, every, config["trainer"]["device"], changes)
    return plans


def _compose(what: str, lines: Sequence[str]) -> dict[str, Any]:
    """Overrides are written down and shown as they are, so none may hold a secret."""
    try:
        config: dict[str, Any] = OmegaConf.to_container(composed(lines), resolve=True)  # type: ignore[assignment]
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{what} does not compose: {' '.join(str(error).split())[:600]}") from error
    try:
        check_secrets(config)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from error
    return config


def _evaluated(config: dict[str, Any]) -> dict[str, Any]:
    tasks = config["data"]["sdar_tasks"]
    own = {key: tasks[key] for key in ("env", "valid_split", "panel_size", "panel_seed")}
    return own | {"data_root": tasks["config"].get("data_root")}


def _length(arm: Arm, trainer: dict[str, Any]) -> tuple[int, int]:
    steps, every = trainer["total_training_steps"], trainer["test_freq"]
    if not isinstance(steps, int) or steps < 1:
        raise ConfigError(f"arm {arm.name}: set trainer.total_training_steps, so that it is known how long it trains")
    if not isinstance(every, int) or not 1 <= every <= steps:
        raise ConfigError(
            f"arm {arm.name}: trainer.test_freq={every} evaluates nothing within {steps} steps, so there would be "
            f"nothing to compare; set it to a number from 1 to {steps}"
        )
    return steps, every
