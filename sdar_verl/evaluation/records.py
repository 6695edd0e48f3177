"""What a run writes down about its episodes: one JSON object a line, checked when written and when read."""

from __future__ import annotations

import math
import types
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sdar_verl.errors import SdarError

T = TypeVar("T")


class RecordError(SdarError):
    """A record does not have the fields or values that its kind demands."""


@dataclass(frozen=True)
class TurnRecord:
    """One action of an episode; the counts are in tokens. `teacher_prompt_tokens` is None without a teacher."""

    observation: str
    response: str
    action: str
    valid: bool
    prompt_tokens: int
    teacher_prompt_tokens: int | None
    response_tokens: int


@dataclass(frozen=True)
class EpisodeRecord:
    """One played episode.

    Attributes:
        step: of training: an evaluation's weights are those after it (0 = before training), a training episode's those
            before it.
        split: ``train`` for rollouts, ``val`` for the panel.
        uid: the group of episodes that share a task; `session` counts inside the group.
        reward: the episode's summed reward, in the environment's unit.
        failed: why the episode did not finish (a crashed or stuck environment), None when it did.
        skills: ids of the skills retrieved, for the teacher or for the student.
        seconds, env_seconds, gen_seconds: wall time of the whole episode, of environment calls, of generation.
        score: the environment's own measure of the episode in [0, 1], where it has one beside winning; else None.
    """

    step: int
    split: Literal["train", "val"]
    task_id: str
    task_type: str
    uid: str
    session: int
    won: bool
    reward: float
    failed: str | None
    skills: list[str]
    seconds: float
    env_seconds: float
    gen_seconds: float
    turns: list[TurnRecord]
    score: float | None = None

    def __post_init__(self) -> None:
        if self.won and self.failed is not None:
            raise RecordError(f"episode of {self.task_id!r} is both won and failed ({self.failed})")


@dataclass(frozen=True)
class TokenTurn:
    """One response, token by token; all lists have the same length T. Log-probs and gap in nats, gate in [0, 1]."""

    observation: str
    tokens: list[str]
    response_ids: list[int]
    student_logp: list[float]
    teacher_logp: list[float]
    gap: list[float]
    gate: list[float]

    def __post_init__(self) -> None:
        lengths = {f.name: len(getattr(self, f.name)) for f in fields(self) if f.name != "observation"}
        if len(set(lengths.values())) != 1:
            raise RecordError(f"the token lists of a turn differ in length: {lengths}")


@dataclass(frozen=True)
class TokenRecord:
    """One episode with what student and teacher thought of every sampled token."""

    step: int
    task_id: str
    task_type: str
    uid: str
    session: int
    won: bool
    turns: list[TokenTurn]
    student_prompt: str
    teacher_prompt: str


def to_dict(record: Any) -> dict[str, Any]:
    """The record as plain JSON values, after checking every field.

    Raises:
        RecordError: a field has the wrong type or a number is not finite.
    """
    from_dict(type(record), content := asdict(record))
    return content


def from_dict(kind: type[T], content: Any) -> T:
    """Build a record of `kind`.

    Raises:
        RecordError: `content` is no mapping, misses a field without a default, has an unknown one or a value of the
            wrong type.
    """
    return _build(kind, content, kind.__name__)


def _build(kind: type[T], content: Any, where: str) -> T:
    if not isinstance(content, dict):
        raise RecordError(f"{where} must be an object, got {type(content).__name__}")
    hints = _hints(kind)
    required = {f.name for f in fields(kind) if f.default is MISSING}
    if missing := sorted(required - content.keys()):
        raise RecordError(f"{where} misses {', '.join(missing)}")
    if unknown := sorted(content.keys() - hints.keys()):
        raise RecordError(f"{where} has unknown fields {', '.join(map(str, unknown))}")
    given = {name: hint for name, hint in hints.items() if name in content}
    return kind(**{name: _value(hint, content[name], f"{where}.{name}") for name, hint in given.items()})


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(kind: type) -> dict[str, Any]:
    if kind not in _HINTS:
        _HINTS[kind] = get_type_hints(kind)
    return _HINTS[kind]


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin is list:
        if not isinstance(value, list):
            raise RecordError(f"{where} must be a list, got {type(value).__name__}")
        (inner,) = get_args(hint)
        return [_value(inner, item, f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is Literal:
        if value not in get_args(hint):
            raise RecordError(f"{where} must be one of {', '.join(get_args(hint))}, got {value!r}")
        return value
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (inner,) = (option for option in get_args(hint) if option is not type(None))
        return _value(inner, value, where)
    if is_dataclass(hint):
        return _build(hint, value, where)
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:  # bool is an int to isinstance; numpy scalars are no JSON
        raise RecordError(f"{where} must be {hint.__name__}, got {type(value).__name__}")
    if hint is float and not math.isfinite(value):
        raise RecordError(f"{where} must be finite, got {value}")
    return value
