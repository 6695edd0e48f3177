"""The parts of a run's settings, each checked by itself; `sdar_verl.settings` puts them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sdar_verl.errors import ConfigError
from sdar_verl.teacher.contexts import CONTEXTS
from sdar_verl.teacher_parts import RemoteSettings, ServerSettings, is_number

TEACHER_PLACEMENTS = ("actor", "ref", "remote", "server", "rollout")
SERVED = ("remote", "server")  # scored over HTTP, with weights that never change
STUDENT_SKILLS = ("none", "train", "always")
SKILL_SCORES = ("won", "reward")
LEARNING_RETRIEVERS = ("ucb",)
EARLY_RETRIEVERS = ("ucb", "semantic")  # know only what is known when an episode begins


_WEIGHTS_OF = {  # placement -> what may give its teacher other weights
    "ref": ("update_rate", "trust_region", "model_path"),
    "server": ("update_rate", "model_path"),
    "remote": ("model_path",),
}


@dataclass(frozen=True)
class TeacherSettings:
    """Attributes:
    placement: whose weights score and where: ``actor`` (current policy, before the update), ``ref`` (frozen initial
        policy, or see below), ``rollout`` (current policy, in the rollout engine), ``remote`` (frozen, at servers that
        others run) or ``server`` (frozen or a moving average, at servers that the run starts).
    prompt_placement: where the privileged text goes, see `sdar_verl.teacher.placements`.
    max_prompt_length: most tokens a privileged prompt may have.
    overflow: ``shrink`` leaves out whole skills until it fits, ``raise`` never does.
    update_rate: with ``placement=ref`` or ``server``, the rate at which the weights follow the policy's; None keeps
        them frozen.
    sync_steps: training steps between two such updates.
    trust_region: with ``placement=ref``, the share of the policy's logits in the teacher's; None for none.
    model_path: with ``placement=ref``, ``remote`` or ``server``, another model of the same tokenizer as the teacher;
        None for the policy's own.
    remote: how served teachers are asked; `server`: how the run's own ones are started.
    """

    placement: str
    prompt_placement: str
    max_prompt_length: int
    overflow: str
    update_rate: float | None
    sync_steps: int
    trust_region: float | None
    model_path: str | None
    remote: RemoteSettings
    server: ServerSettings

    def __post_init__(self) -> None:
        if self.placement not in TEACHER_PLACEMENTS:
            raise ConfigError(
                f"sdar.teacher.placement={self.placement!r} is unknown; known: {', '.join(TEACHER_PLACEMENTS)}"
            )
        if (self.placement == "remote") != bool(self.remote.endpoints):
            raise ConfigError(
                "sdar.teacher.placement=remote needs the servers' addresses in sdar.teacher.remote.endpoints"
                if self.placement == "remote"
                else f"sdar.teacher.remote.endpoints has no effect with sdar.teacher.placement={self.placement}; set "
                "placement=remote or endpoints=[]"
            )
        if isinstance(self.sync_steps, bool) or not isinstance(self.sync_steps, int) or self.sync_steps < 1:
            raise ConfigError(f"sdar.teacher.sync_steps must be a whole number from 1, got {self.sync_steps!r}")
        if self.update_rate is None and self.sync_steps != 1:
            raise ConfigError("sdar.teacher.sync_steps has no effect without sdar.teacher.update_rate; set a rate")
        if self.update_rate is not None and not (is_number(self.update_rate) and 0 < self.update_rate <= 1):
            raise ConfigError(f"sdar.teacher.update_rate must lie in (0, 1] or be null, got {self.update_rate!r}")
        if self.trust_region is not None and not (is_number(self.trust_region) and 0 < self.trust_region < 1):
            raise ConfigError(
                f"sdar.teacher.trust_region must lie between 0 and 1 or be null, got {self.trust_region!r}"
            )
        if self.model_path == "":  # the method asks for one
            raise ConfigError("sdar.teacher.model_path is not set; name the teacher's model (a folder or a hub's name)")
        why = {
            "server": "serves the policy's initial weights, their moving average or another model",
            "remote": "has weights that never change",
        }.get(self.placement, "always has the policy's weights")
        for key in self.set_weights:
            if key.rpartition(".")[2] not in _WEIGHTS_OF.get(self.placement, ()):
                raise ConfigError(
                    f"{key} changes the reference model; set sdar.teacher.placement=ref "
                    f"(placement={self.placement} {why})"
                )
        if self.served and self.remote.on_failure == "fallback" and self.model_path is not None:
            raise ConfigError(
                "sdar.teacher.remote.on_failure=fallback scores with the reference model, which has the policy's "
                "initial weights, not those of sdar.teacher.model_path; choose wait or skip"
            )
        if len(self.set_weights) > 1:
            raise ConfigError(f"{' and '.join(self.set_weights)} each say whose weights the teacher has; choose one")

    @property
    def served(self) -> bool:
        """Whether servers score, over HTTP."""
        return self.placement in SERVED

    @property
    def follows_policy(self) -> bool:
        """Whether it always has the policy's own weights."""
        return self.placement in ("actor", "rollout") or (self.update_rate == 1 and self.sync_steps == 1)

    @property
    def fills_reference(self) -> bool:
        """Whether verl's reference model holds the teacher's weights in place of the policy's initial ones."""
        other = self.placement == "ref" and self.model_path is not None
        return other or (self.placement in ("ref", "server") and self.update_rate is not None)

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
        if not is_number(self.c) or self.c < 0:
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
        if threshold is not None and not is_number(threshold):
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
