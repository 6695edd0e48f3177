"""The ``sdar`` and ``env`` parts of a run's configuration, as checked values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from sdar_verl.core import DistillationConfig, StepGroupsConfig
from sdar_verl.errors import ConfigError
from sdar_verl.guards import GuardSettings, guard_settings, watched
from sdar_verl.teacher.contexts import CONTEXTS, SkillsContext

ROWS = ("step", "trajectory")
TEACHER_PLACEMENTS = ("actor", "ref")
STUDENT_SKILLS = ("none", "train", "always")
SKILL_SCORES = ("won", "reward")
LEARNING_RETRIEVERS = ("ucb",)
EARLY_RETRIEVERS = ("ucb", "semantic")  # know only what is known when an episode begins
T = TypeVar("T")


@dataclass(frozen=True)
class TeacherSettings:
    """Attributes:
    placement: whose weights score: ``actor`` (current policy, before the update) or ``ref`` (frozen initial policy).
    prompt_placement: where the privileged text goes, see `sdar_verl.teacher.placements`.
    max_prompt_length: most tokens a privileged prompt may have.
    overflow: ``shrink`` leaves out whole skills until it fits, ``raise`` never does.
    update_rate: with ``placement=ref``, the rate at which the weights follow the policy's; None keeps them frozen.
    sync_steps: training steps between two such updates.
    trust_region: with ``placement=ref``, the share of the policy's logits in the teacher's; None for none.
    model_path: with ``placement=ref``, another model of the same tokenizer as the teacher; None for the policy's own.
    """

    placement: str
    prompt_placement: str
    max_prompt_length: int
    overflow: str
    update_rate: float | None
    sync_steps: int
    trust_region: float | None
    model_path: str | None

    def __post_init__(self) -> None:
        if self.placement not in TEACHER_PLACEMENTS:
            raise ConfigError(
                f"sdar.teacher.placement={self.placement!r} is unknown; known: {', '.join(TEACHER_PLACEMENTS)}"
            )
        if isinstance(self.sync_steps, bool) or not isinstance(self.sync_steps, int) or self.sync_steps < 1:
            raise ConfigError(f"sdar.teacher.sync_steps must be a whole number from 1, got {self.sync_steps!r}")
        if self.update_rate is None and self.sync_steps != 1:
            raise ConfigError("sdar.teacher.sync_steps has no effect without sdar.teacher.update_rate; set a rate")
        if self.update_rate is not None and not (_is_number(self.update_rate) and 0 < self.update_rate <= 1):
            raise ConfigError(f"sdar.teacher.update_rate must lie in (0, 1] or be null, got {self.update_rate!r}")
        if self.trust_region is not None and not (_is_number(self.trust_region) and 0 < self.trust_region < 1):
            raise ConfigError(
                f"sdar.teacher.trust_region must lie between 0 and 1 or be null, got {self.trust_region!r}"
            )
        if self.model_path == "":  # the method asks for one
            raise ConfigError("sdar.teacher.model_path is not set; name the teacher's model (a folder or a hub's name)")
        if self.placement != "ref" and self.set_weights:
            raise ConfigError(
                f"{self.set_weights[0]} changes the reference model; set sdar.teacher.placement=ref "
                "(placement=actor always has the policy's weights)"
            )
        if len(self.set_weights) > 1:
            raise ConfigError(f"{' and '.join(self.set_weights)} each say whose weights the teacher has; choose one")

    @property
    def set_weights(self) -> list[str]:
        """The keys that give the teacher other weights than the policy's or its initial ones."""
        names = ("update_rate", "trust_region", "model_path")
        return [f"sdar.teacher.{name}" for name in names if getattr(self, name) is not None]


@dataclass(frozen=True)
class UcbSettings:
    """Attributes:
    c: weight of what was tried too little, in the unit of the score.
    score: what counts of an episode: ``won`` (0 or 1) or ``reward`` (in the environment's unit, penalties taken off).
    """

    c: float
    score: str

    def __post_init__(self) -> None:
        if not _is_number(self.c) or self.c < 0:
            raise ConfigError(f"sdar.skills.ucb.c must be a number >= 0, got {self.c!r}")
        if self.score not in SKILL_SCORES:
            raise ConfigError(f"sdar.skills.ucb.score={self.score!r} is unknown; known: {', '.join(SKILL_SCORES)}")


@dataclass(frozen=True)
class SemanticSettings:
    """Attributes:
    model: folder of a sentence encoder; None for the packaged one.
    skills: how many task-specific skills are shown.
    """

    model: str | None
    skills: int

    def __post_init__(self) -> None:
        if isinstance(self.skills, bool) or not isinstance(self.skills, int) or self.skills < 1:
            raise ConfigError(f"sdar.skills.semantic.skills must be a whole number from 1, got {self.skills!r}")


@dataclass(frozen=True)
class SkillSettings:
    """Attributes:
    store: a shipped set's name, a folder, or an address in DynamoDB.
    retriever: see `sdar_verl.skills.retrievers`.
    allow_missing: train task types that have no skill with the general ones alone.
    seed: of the drawing retrievers.
    student: where the student itself is shown the skills: ``none``, ``train`` (not in validation) or ``always``.
    ucb, semantic: of the retrievers of these names.
    """

    store: str
    retriever: str
    allow_missing: bool
    seed: int
    student: str
    ucb: UcbSettings
    semantic: SemanticSettings

    def __post_init__(self) -> None:
        if self.student not in STUDENT_SKILLS:
            raise ConfigError(f"sdar.skills.student={self.student!r} is unknown; known: {', '.join(STUDENT_SKILLS)}")
        if self.learns and self.student == "always":
            raise ConfigError(
                f"sdar.skills.retriever={self.retriever} also shows skills to find out how good they are, which a "
                "validation must not; set sdar.skills.student=train"
            )

    @property
    def learns(self) -> bool:
        """Whether the retriever learns from the run's episodes."""
        return self.retriever in LEARNING_RETRIEVERS


@dataclass(frozen=True)
class ContextSettings:
    """What the teacher is shown; the long names are TRL's.

    Attributes:
        parts: ``skills``, ``reference``, ``demonstration``, ``feedback``; empty shows it what the student sees.
        success_reward_threshold: least reward of a successful episode; None asks the environment's verdict.
        remove_thinking_from_demonstration: show a demonstration's actions, not its whole answers.
        environment_feedback_only_without_solution: no feedback where a reference or a demonstration is shown.
    """

    parts: tuple[str, ...]
    success_reward_threshold: float | None
    remove_thinking_from_demonstration: bool
    environment_feedback_only_without_solution: bool

    def __post_init__(self) -> None:
        if not isinstance(self.parts, (list, tuple)) or not all(isinstance(part, str) for part in self.parts):
            raise ConfigError(f"sdar.context.parts must be a list such as [skills], got {self.parts!r}")
        object.__setattr__(self, "parts", tuple(self.parts))
        unknown = [part for part in self.parts if part not in CONTEXTS]
        if unknown or len(set(self.parts)) != len(self.parts):
            raise ConfigError(
                f"sdar.context.parts={list(self.parts)} must name each of its parts once; known: {', '.join(CONTEXTS)}"
            )
        threshold = self.success_reward_threshold
        if threshold is not None and not _is_number(threshold):
            raise ConfigError(f"sdar.context.success_reward_threshold must be a number or null, got {threshold!r}")
        shown = set(self.parts)
        idle = {
            "success_reward_threshold (set null)": threshold is not None and not shown & {"demonstration", "feedback"},
            "remove_thinking_from_demonstration (set true)": (
                not self.remove_thinking_from_demonstration and "demonstration" not in shown
            ),
            "environment_feedback_only_without_solution (set true)": (
                not self.environment_feedback_only_without_solution and "feedback" not in shown
            ),
        }
        if named := [f"sdar.context.{name}" for name, found in idle.items() if found]:
            raise ConfigError(f"{', '.join(named)} without effect: sdar.context.parts={list(self.parts)}")
        if self.environment_feedback_only_without_solution and shown >= {"reference", "feedback"}:
            raise ConfigError(
                "sdar.context.parts with reference always holds a solution, so feedback would never be shown; take one "
                "of the two out, or set sdar.context.environment_feedback_only_without_solution=false"
            )


@dataclass(frozen=True)
class PoolSettings:
    """Worker processes of the environment, per agent-loop worker; timeouts in seconds."""

    workers: int
    envs_per_worker: int
    step_timeout: float
    reset_timeout: float
    episode_timeout: float


@dataclass(frozen=True)
class ServiceSettings:
    """Environment services instead of worker processes; timeouts in seconds.

    Attributes:
        endpoints: ``ws://host:port`` of each service; empty for worker processes.
        token_file: holds their token; None reads the environment variable SDAR_ENV_TOKEN.
        connect_timeout: of one attempt to connect.
        reconnect_timeout: that a lost connection may take to come back before its episodes fail.
        ping_timeout: without a sign of life before a connection counts as lost.
    """

    endpoints: tuple[str, ...]
    token_file: str | None
    connect_timeout: float
    reconnect_timeout: float
    ping_timeout: float

    def __post_init__(self) -> None:
        if isinstance(self.endpoints, str) or not all(isinstance(url, str) for url in self.endpoints or ()):
            raise ConfigError(f"env.service.endpoints must be a list of addresses, got {self.endpoints!r}")
        object.__setattr__(self, "endpoints", tuple(self.endpoints or ()))
        if len(set(self.endpoints)) != len(self.endpoints):
            raise ConfigError("env.service.endpoints names a service twice")
        for name in ("connect_timeout", "reconnect_timeout", "ping_timeout"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"env.service.{name} must be positive")


@dataclass(frozen=True)
class EnvSettings:
    """Attributes:
    name: environment family.
    config: the family's own settings, ``env.<name>``.
    invalid_action_penalty: taken from the episode's reward for each invalid action.
    train_split, valid_split: names of the splits.
    pool: worker processes, where `service` has no endpoints.
    """

    name: str
    config: dict[str, Any]
    invalid_action_penalty: float
    train_split: str
    valid_split: str
    pool: PoolSettings
    service: ServiceSettings


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
        teacher = self.teacher
        follows = teacher.update_rate == 1 and teacher.sync_steps == 1
        if self.context.parts == () and (teacher.placement == "actor" or follows):
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
        skills = dict(_part(sdar, "skills", "sdar."))
        for key, kind in (("ucb", UcbSettings), ("semantic", SemanticSettings)):
            skills[key] = _make(kind, _part(skills, key, "sdar.skills."), f"sdar.skills.{key}")
        return cls(
            method=sdar["method"],
            run_dir=sdar["run_dir"],
            rows=sdar["rows"],
            max_turn_tokens=sdar["max_turn_tokens"],
            distillation=term if enabled else None,
            step_groups=step_groups,
            context=_make(ContextSettings, _part(sdar, "context", "sdar."), "sdar.context"),
            teacher=_make(TeacherSettings, _part(sdar, "teacher", "sdar."), "sdar.teacher"),
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
            guards=watched(
                guard_settings(_part(sdar, "guards", "sdar.")),
                term.gate if enabled and term.place == "loss" else None,
            ),
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


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
