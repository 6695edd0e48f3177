"""Requests as the server reads them; whatever does not fit exactly is refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sdar_envs.service.protocol import BAD_MESSAGE, Refusal

RequestId = Annotated[int, Field(ge=0, lt=2**53)]
SessionId = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Split = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=64)]  # never a path


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    id: RequestId


class Hello(_Request):
    op: Literal["hello"]
    protocol: int


class Tasks(_Request):
    op: Literal["tasks"]
    split: Split


class Reset(_Request):
    op: Literal["reset"]
    session: SessionId
    split: Split
    task: Annotated[str, Field(max_length=1024)]
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None


class Step(_Request):
    op: Literal["step"]
    session: SessionId
    seq: Annotated[int, Field(ge=1, lt=2**53)]
    action: str


class Close(_Request):
    op: Literal["close"]
    session: SessionId


class Resume(_Request):
    op: Literal["resume"]
    sessions: list[SessionId]


Request = Hello | Tasks | Reset | Step | Close | Resume
_READER: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="op")])
_ID: TypeAdapter[dict] = TypeAdapter(dict)


def read(text: str | bytes) -> Request:
    """The request in one message; `Refusal` says what is wrong with it, without repeating what was sent."""
    try:
        return _READER.validate_json(text)
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "message"
        raise Refusal(BAD_MESSAGE, f"{where}: {first['msg'][:200]}") from None


def read_id(text: str | bytes) -> int | None:
    """The id of a message that `read` refused, so that its sender can be told; None if it has none."""
    try:
        value = _ID.validate_json(text).get("id")
    except ValidationError:
        return None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None
