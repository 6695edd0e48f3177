"""The ``sdar`` and ``env`` parts of a run's configuration, as checked values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from sdar_verl.core import DistillationConfig, StepGroupsConfig
from sdar_verl.errors import ConfigError
from sdar_verl.guards import GuardSettings, guard_settings, idle, watched
from sdar_verl.settings_parts import (
    EARLY_RETRIEVERS,
    ContextSettings,
    EnvSettings,
    PoolSettings,
    SemanticSettings,
    ServiceSettings,
    SkillSettings,
    TeacherSettings,
    UcbSettings,
)
from sdar_verl.storage.settings import CheckpointSettings, SpotSettings
from sdar_verl.teacher.contexts import CONTEXTS, SkillsContext
from sdar_verl.teacher_parts import RemoteSettings, ServerSettings

ROWS = ("step", "trajectory")
T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """Attributes:
    method: name of the method, for logs and reports.
    run_dir: where the run writes.
    rows: ``step`` (one row a turn) or ``trajectory`` (one row an episode).
    max_turn_tokens: most tokens of one answer; None for what the response length allows.
    distillation: the term's settings, or None for plain RL.
    step_groups: GiGPO's step-level advantages.
    context: what the teacher is shown.
    panel_size, panel_seed: the fixed validation panel; size None takes the whole split.
    token_episodes: episodes a step whose tokens are written to ``tokens.jsonl``.
    poll_seconds: how often the trainer looks for finished episodes.
    guards: what is watched in each step, see `sdar_verl.guards`; those that are off or have nothing to watch left out.
    checkpoints: where they go beside the machine.
    spot: how the end of the machine is noticed and met.
    """

    method: str
    run_dir: str
    rows: str
    max_turn_tokens: int | None
    distillation: DistillationConfig | None
    step_groups: StepGroupsConfig
    context: ContextSettings
    teacher: TeacherSettings
    skills: SkillSettings
    env: EnvSettings
    panel_size: int | None
    panel_seed: int
    token_episodes: int
    poll_seconds: float
    guards: dict[str, GuardSettings]
    checkpoints: CheckpointSettings
    spot: SpotSettings

    def __post_init__(self) -> None:
        if self.rows not in ROWS:
            raise ConfigError(f"sdar.rows={self.rows!r} is unknown; known: {', '.join(ROWS)}")
        if not math.isfinite(self.env.invalid_action_penalty) or self.env.invalid_action_penalty < 0:
            raise ConfigError("env.invalid_action_penalty must be a finite number >= 0")
        if self.distillation is not None and self.skills.student != "none":
            raise ConfigError(
                f"sdar.skills.student={self.skills.student} shows the student what its teacher is shown, so there "
                "would be nothing to distil; set sdar.distillation.enabled=false or sdar.skills.student=none"
            )
        if self.distillation is not None:
            self._check_context()
        elif self.context.parts != (SkillsContext.name,):
            raise ConfigError(
                f"sdar.context.parts={list(self.context.parts)} is for a teacher, and there is none; a student is "
                "shown skills alone. Leave it at [skills]"
            )
        if self.distillation is None and self.teacher.set_weights:
            raise ConfigError(
                f"{self.teacher.set_weights[0]} without distillation would only change the KL term's reference; set it "
                "to null"
            )
        if self.teacher.trust_region is not None:
            self._check_trust_region()
        if self.step_groups.weight > 0 and self.distillation is not None and not self.distillation.rl:
            raise ConfigError(
                "sdar.step_groups adds to the reward's advantage, which sdar.distillation.rl=false takes out; set "
                "sdar.step_groups.weight=0 or rl=true"
            )
        if self.step_groups.weight > 0 and self.rows != "step":
            raise ConfigError("sdar.step_groups compares turns, which sdar.rows=trajectory joins; set sdar.rows=step")
        if not 0.01 <= self.poll_seconds <= 60:
            raise ConfigError("sdar.poll_seconds must lie between 0.01 and 60")

    def _check_context(self) -> None:
        if self.context.parts == () and self.teacher.follows_policy:
            raise ConfigError(
                "sdar.context.parts=[] and the policy's own weights make teacher and student the same: the gap is 0 "
                "everywhere. Show the teacher something, or give it other weights"
            )
        if SkillsContext.name in self.context.parts and len(self.context.parts) > 1 and self.skills.retriever == "none":
            raise ConfigError("sdar.skills.retriever=none shows no skills; take `skills` out of sdar.context.parts")
        waiting = [part for part in self.context.parts if CONTEXTS[part].needs_group]
        if SkillsContext.name in self.context.parts and self.skills.retriever in EARLY_RETRIEVERS and waiting:
            raise ConfigError(
                f"sdar.skills.retriever={self.skills.retriever} chooses when an episode begins, but the context "
                f"{waiting[0]} is known only after it; take one of them out"
            )
        if self.teacher.placement == "rollout" and waiting:
            raise ConfigError(
                f"sdar.teacher.placement=rollout scores as episodes end, but the context {waiting[0]} is known only "
                "after their group; take it out, or set sdar.teacher.placement=actor"
            )
        if "distribution" in self.distillation.needs and self.teacher.placement not in ("actor", "ref"):
            raise ConfigError(
                f"sdar.distillation.divergence={self.distillation.divergence} compares whole distributions, and "
                f"sdar.teacher.placement={self.teacher.placement} gives the sampled tokens' log-probabilities alone; "
                "set divergence=sampled_token or k3, or placement=actor or ref"
            )

    def _check_trust_region(self) -> None:
        """Two logits are mixed, so both are needed: the score of the sampled tokens alone cannot give the mixture's."""
        term = self.distillation
        if "distribution" not in term.needs or term.gate != "none":
            raise ConfigError(
                "sdar.teacher.trust_region mixes logits, which a score of the sampled tokens lacks; set "
                "sdar.distillation.divergence=full or topk, and gate=none"
            )

    @property
    def uses_skills(self) -> bool:
        """Whether teacher or student is shown skills."""
        if self.distillation is None:
            return self.skills.student != "none"
        return SkillsContext.name in self.context.parts

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Settings:
        """From the resolved configuration as plain mappings; raises `ConfigError` that names the key."""
        sdar, env = dict(_part(config, "sdar")), dict(_part(config, "env"))
        distillation = dict(_part(sdar, "distillation", "sdar."))
        enabled = distillation.pop("enabled", True)
        panel, record = _part(sdar, "panel", "sdar."), _part(sdar, "record", "sdar.")
        name = env.get("name")
        if not isinstance(env.get(name), Mapping):
            raise ConfigError(f"env.name={name!r} has no section env.{name}; choose an environment with env=<name>")
        pool = _make(PoolSettings, _part(env, "pool", "env."), "env.pool")
        if min(pool.workers, pool.envs_per_worker) < 1:
            raise ConfigError("env.pool.workers and env.pool.envs_per_worker must be at least 1")
        try:
            term = DistillationConfig.from_mapping(distillation)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"sdar.distillation: {error}") from error
        try:
            step_groups = _make(StepGroupsConfig, _part(sdar, "step_groups", "sdar."), "sdar.step_groups")
        except ValueError as error:
            raise ConfigError(f"sdar.step_groups: {error}") from error
        teacher = dict(_part(sdar, "teacher", "sdar."))
        for key, kind in (("remote", RemoteSettings), ("server", ServerSettings)):
            teacher[key] = _make(kind, _part(teacher, key, "sdar.teacher."), f"sdar.teacher.{key}")
        skills = dict(_part(sdar, "skills", "sdar."))
        for key, kind in (("ucb", UcbSettings), ("semantic", SemanticSettings)):
            skills[key] = _make(kind, _part(skills, key, "sdar.skills."), f"sdar.skills.{key}")
        teacher_settings = _make(TeacherSettings, teacher, "sdar.teacher")
        idle_guards = idle(
            term.gate if enabled and term.place == "loss" else None,
            _part(_part(config, "actor_rollout_ref"), "actor", "actor_rollout_ref.")["loss_agg_mode"],
            teacher_in_reference=enabled and teacher_settings.fills_reference,
        )
        return cls(
            method=sdar["method"],
            run_dir=sdar["run_dir"],
            rows=sdar["rows"],
            max_turn_tokens=sdar["max_turn_tokens"],
            distillation=term if enabled else None,
            step_groups=step_groups,
            context=_make(ContextSettings, _part(sdar, "context", "sdar."), "sdar.context"),
            teacher=teacher_settings,
            skills=_make(SkillSettings, skills, "sdar.skills"),
            env=EnvSettings(
                name=name,
                config=dict(env[name]),
                invalid_action_penalty=float(env["invalid_action_penalty"]),
                train_split=env["train_split"],
                valid_split=env["valid_split"],
                pool=pool,
                service=_make(ServiceSettings, _part(env, "service", "env."), "env.service"),
            ),
            panel_size=panel["size"],
            panel_seed=panel["seed"],
            token_episodes=record["token_episodes"],
            poll_seconds=float(sdar["poll_seconds"]),
            guards=watched(guard_settings(_part(sdar, "guards", "sdar.")), idle_guards),
            checkpoints=_make(CheckpointSettings, _part(sdar, "checkpoints", "sdar."), "sdar.checkpoints"),
            spot=_make(SpotSettings, _part(sdar, "spot", "sdar."), "sdar.spot"),
        )


def _part(config: Mapping[str, Any], key: str, where: str = "") -> Mapping[str, Any]:
    part = config.get(key)
    if not isinstance(part, Mapping):
        raise ConfigError(f"the configuration has no section {where}{key}; start from sdar_verl's config `sdar`")
    return part


def _make(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    unknown, missing = sorted(set(values) - set(known)), sorted(set(known) - set(values))
    if unknown or missing:
        problems = [f"unknown key {where}.{k}" for k in unknown] + [f"missing key {where}.{k}" for k in missing]
        raise ConfigError(f"{'; '.join(problems)}; known: {', '.join(known)}")
    return cls(**values)
