"""What a quickstart does: steps within a time budget, and the command line of each run."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path

from omegaconf import OmegaConf

from sdar_verl.errors import ConfigError
from sdar_verl.runs import lab
from sdar_verl.runs.command import assignments, seeds, training

CONFIG = Path(__file__).parents[1] / "config"


@dataclass(frozen=True)
class Plan:
    """Attributes:
    methods: one run each, in this order.
    steps: training steps of every run.
    minutes: time budget of everything, for which `steps` was found.
    fixed: seconds of the budget that are no training.
    every: steps between two evaluations; `steps` is a multiple of it.
    panel: tasks of the evaluation panel; 0 evaluates never.
    train_games: games to generate for training.
    """

    methods: tuple[str, ...]
    steps: int
    minutes: float
    fixed: float
    every: int
    panel: int
    train_games: int

    def within(self, minutes: float) -> Plan:
        """This plan for another budget: steps in proportion to the time that is left for training."""
        if not math.isfinite(minutes) or minutes <= 0:
            raise ConfigError(f"--minutes {minutes:g} is no budget; give a number above 0")
        share = (minutes * 60 - self.fixed) / (self.minutes * 60 - self.fixed)
        return replace(self, steps=self._whole(self.steps * share), minutes=minutes)

    def affordable(self, elapsed: float, start: float, done: int, step: float, evaluation: float) -> int:
        """Steps that every run can make within the budget, as measured early in the first run.

        Args:
            elapsed: seconds gone so far, all of them.
            start: seconds that the first run took until its first training step began, its first evaluation included.
            done: training steps made so far.
            step: seconds of one training step.
            evaluation: seconds of one evaluation.

        Returns:
            `steps` if all of them fit (up to a tenth more time is let pass, for a new start costs as much); else what
            fits after starting again: a multiple of `every`, at least `every`.
        """
        runs, budget = len(self.methods), self.minutes * 60
        each = step * _DEARER + evaluation / self.every
        if elapsed + (runs - 1) * start + (runs * self.steps - done) * each <= 1.1 * budget:
            return self.steps
        return min(self.steps, self._whole((budget - elapsed - runs * start) / (runs * each)))

    def _whole(self, steps: float) -> int:
        return max(self.every, int(steps) // self.every * self.every)


_DEARER = 1.15  # a mean step of both methods over one of GRPO, which runs first


def load_plan(model: str, env: str = "alfworld") -> Plan:
    """The plan of ``config/quickstart.yaml`` for an environment and a start model.

    Raises:
        ConfigError: there is none; the message lists the known ones.
    """
    every = OmegaConf.to_container(OmegaConf.load(CONFIG / "quickstart.yaml"))
    if env not in every:
        raise ConfigError(f"the quickstart has no plan for {env}; it has for: {', '.join(every)}")
    plans = every[env]
    if model not in plans:
        raise ConfigError(f"--model {model} is unknown with --env {env}; known: {', '.join(plans)}")
    values = plans[model]
    assert set(values) == {field.name for field in fields(Plan)}
    return Plan(**{**values, "methods": tuple(values["methods"])})


def command(
    plan: Plan,
    method: str,
    *,
    preset: str,
    model: Path,
    games: Path,
    run_dir: Path,
    seed: int,
    env: str = "alfworld",
) -> list[str]:
    """The command line of one run; two methods' lines differ in ``method=`` and where the run writes."""
    settings = lab.settings(env, model, games, plan.panel or 1, panel_seed=seed) | {
        "sdar.run_dir": run_dir,
        **seeds(seed),
        "trainer.experiment_name": method,
        "trainer.total_training_steps": plan.steps,
        "trainer.total_epochs": plan.steps,
        "trainer.test_freq": plan.every if plan.panel else -1,
        "trainer.resume_mode": "disable",
    }
    groups = ["platform=cpu", f"env={env}", f"method={method}", f"+lab={preset}"]
    return training([*groups, *assignments(settings)])
