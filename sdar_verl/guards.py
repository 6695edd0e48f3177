"""Guards: what is watched in a run, step by step, and whether a finding warns or stops. Pure logic, no verl."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from sdar_verl.errors import ConfigError, SdarError

ACTIONS = ("off", "warn", "stop")
FILE = "guards.jsonl"
EXIT_CODE = 3  # of a run that a guard stopped; 2 is an error, 130 a stop by hand
Step = Mapping[str, float]


class GuardStop(SdarError):
    """A guard that was told to stop the run found what it watches for; the checkpoint of the step is saved."""


@dataclass(frozen=True)
class GuardSettings:
    """Attributes:
    action: ``off``, ``warn`` or ``stop``.
    limit: the bound, in the guard's own unit.
    steps: steps in a row that must be past the bound.
    """

    action: str
    limit: float
    steps: int

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ConfigError(f"action={self.action!r} is unknown; known: {', '.join(ACTIONS)}")
        if isinstance(self.limit, bool) or not isinstance(self.limit, int | float) or not math.isfinite(self.limit):
            raise ConfigError(f"limit must be a finite number, got {self.limit!r}")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ConfigError(f"steps must be a whole number from 1, got {self.steps!r}")


@dataclass(frozen=True)
class Finding:
    """One line of ``guards.jsonl``: at `step` the guard saw `value` past its `limit`, for `steps` steps or more."""

    step: int
    guard: str
    action: str
    value: float
    limit: float
    message: str


@dataclass(frozen=True)
class Guard:
    """Attributes:
    metrics: what it reads; where one is missing, the step says nothing.
    measure: the watched number of the last step, given the steps so far (oldest first) and the settings' `steps`;
        None where there is nothing to say yet.
    above: whether the number must stay at or below the limit (else at or above it).
    text: the finding in words, for ``str.format`` with `value`, `limit` and `steps`.
    """

    metrics: tuple[str, ...]
    measure: Callable[[Sequence[Step], int], float | None]
    above: bool
    text: str


ENTROPY, KL = "actor/entropy", "actor/kl_loss"
GATE_ENDS = ("sdar/gate_hist/0..0.1", "sdar/gate_hist/0.9..1")
ZERO_ADVANTAGE = "episode/zero_advantage_share"
VALID, REWARD = "episode/valid_action_share", "episode/reward_mean"


def _last(*names: str) -> Callable[[Sequence[Step], int], float | None]:
    return lambda history, steps: sum(history[-1][name] for name in names)


def _paid_invalid_rise(history: Sequence[Step], window: int) -> float | None:
    """How much the share of invalid actions rose over its lowest earlier mean, if the reward did not fall with it.

    Means over `window` steps. 0.0 where the reward fell: then invalid actions cost more than they gained.
    """
    if len(history) < 2 * window:
        return None

    def means(end: int) -> tuple[float, float]:
        part = history[end - window : end]
        return 1 - fmean(step[VALID] for step in part), fmean(step[REWARD] for step in part)

    invalid, reward = means(len(history))
    before, reward_before = min(means(end) for end in range(window, len(history) - window + 1))
    return max(0.0, invalid - before) if reward >= reward_before else 0.0


GUARDS: dict[str, Guard] = {
    "entropy_collapse": Guard(
        (ENTROPY,),
        _last(ENTROPY),
        False,
        "the policy's entropy is {value:.4g} nats a token (bound {limit:g}): it hardly explores any more",
    ),
    "kl_blowup": Guard(
        (KL,),
        _last(KL),
        True,
        "the KL to the reference policy is {value:.4g} nats a token (bound {limit:g}): the policy has run away from it",
    ),
    "gate_saturation": Guard(
        GATE_ENDS,
        _last(*GATE_ENDS),
        True,
        "{value:.1%} of the tokens have a gate below 0.1 or above 0.9 (bound {limit:.1%}): it is a switch, not a scale",
    ),
    "zero_advantage": Guard(
        (ZERO_ADVANTAGE,),
        _last(ZERO_ADVANTAGE),
        True,
        "{value:.1%} of the episodes are in groups with one and the same reward (bound {limit:.1%}): nothing to learn",
    ),
    "invalid_actions": Guard(
        (VALID, REWARD),
        _paid_invalid_rise,
        True,
        "the share of invalid actions rose by {value:.1%} (bound {limit:.1%}) while the reward did not fall: the "
        "policy may be paid for them",
    ),
}
_OWN_WINDOW = ("invalid_actions",)  # `steps` is the window of its means, not a count of findings in a row


def guard_settings(values: Mapping[str, Any]) -> dict[str, GuardSettings]:
    """The section ``sdar.guards``, checked.

    Raises:
        ConfigError: a guard is unknown or missing, or one of its values is wrong; the message names the key.
    """
    unknown, missing = sorted(set(values) - set(GUARDS)), sorted(set(GUARDS) - set(values))
    if unknown or missing:
        problems = [f"unknown guard sdar.guards.{n}" for n in unknown] + [f"missing sdar.guards.{n}" for n in missing]
        raise ConfigError(f"{'; '.join(problems)}; known: {', '.join(GUARDS)}")
    found = {}
    for name, part in values.items():
        try:
            found[name] = GuardSettings(**part)
        except (ConfigError, TypeError) as error:
            raise ConfigError(f"sdar.guards.{name}: {error} (keys: action, limit, steps)") from error
    return found


def idle(gate: str | None, loss_agg_mode: str, *, teacher_in_reference: bool) -> dict[str, str]:
    """Guards that have nothing to watch in a run, with the reason.

    Args:
        gate: name of the distillation term's gate, None without distillation. ``none`` and ``hard`` are 0 or 1 by
            construction.
        loss_agg_mode: verl reduces entropy and KL by it, like the loss.
        teacher_in_reference: the reference model holds other weights than the initial policy's.
    """
    found = {}
    if gate in (None, "none", "hard"):
        found["gate_saturation"] = f"the gate is {gate or 'absent'}"
    if teacher_in_reference:
        found["kl_blowup"] = "the reference model is the teacher, so the KL is not to where the policy began"
    if loss_agg_mode != "token-mean":
        for name in ("entropy_collapse", "kl_blowup"):
            found.setdefault(name, f"with loss_agg_mode={loss_agg_mode} its number is no mean over tokens")
    return found


def watched(settings: Mapping[str, GuardSettings], idle: Mapping[str, str]) -> dict[str, GuardSettings]:
    """The guards of a run: those that are neither off nor `idle`.

    Raises:
        ConfigError: an idle guard was told to stop the run.
    """
    active = {name: own for name, own in settings.items() if own.action != "off"}
    for name, why in idle.items():
        own = active.pop(name, None)
        if own is not None and own.action == "stop":
            raise ConfigError(f"sdar.guards.{name}.action=stop has nothing to watch: {why}; set it to off")
    return active


def evaluate(history: Mapping[int, Step], settings: Mapping[str, GuardSettings]) -> list[Finding]:
    """What the guards say of the last step of `history`.

    Args:
        history: training step to its metrics; earlier steps may be missing.
        settings: of the guards to ask.

    Returns:
        A finding per guard whose number was past its limit in each of its last `steps` steps. A step that lacks a
        metric (an interrupted run, a critic's warm-up) is passed over; the last one must have them.
    """
    if not history:
        return []
    findings, newest = [], max(history)
    for name, own in settings.items():
        guard = GUARDS[name]
        known = [history[step] for step in sorted(history) if all(metric in history[step] for metric in guard.metrics)]
        if not known or history[newest] is not known[-1]:
            continue
        needed = 1 if name in _OWN_WINDOW else own.steps
        ends = range(len(known), len(known) - needed, -1)
        if ends[-1] < 1:
            continue
        values = [guard.measure(known[:end], own.steps) for end in ends]
        if all(value is not None and (value > own.limit if guard.above else value < own.limit) for value in values):
            text = guard.text.format(value=values[0], limit=own.limit)
            findings.append(Finding(newest, name, own.action, float(values[0]), float(own.limit), text))
    return findings


def blind(history: Mapping[int, Step], settings: Mapping[str, GuardSettings]) -> dict[str, list[str]]:
    """Guards told to stop that cannot see: name to the metrics that no step of `history` has."""
    seen = {metric for step in history.values() for metric in step}
    missing = {name: [m for m in GUARDS[name].metrics if m not in seen] for name, s in settings.items()}
    return {name: names for name, names in missing.items() if names and settings[name].action == "stop"}


def zero_advantage_share(rewards: Mapping[str, Sequence[float]]) -> float:
    """Share of episodes whose group (uid to the rewards of its episodes) has one and the same reward throughout.

    Rewards, not advantages: rounding of equal rewards, divided by their tiny deviation, gives advantages up to 0.1.
    """
    same = sum(len(group) for group in rewards.values() if max(group) - min(group) <= 1e-6 * (1 + abs(group[0])))
    return same / sum(map(len, rewards.values()))


def to_line(finding: Finding) -> dict[str, Any]:
    """The finding as plain JSON values."""
    return asdict(finding)
