"""How a DynamoDB store is addressed and reached."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sdar_verl import aws
from sdar_verl.skills.errors import SkillError, SkillsUnreachable

SCHEME = "dynamodb://"
FORM = "dynamodb://TABLE/SET[?region=...&endpoint=...&release=N]"
ATTEMPTS = 8
_TABLE = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_SET = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")


@dataclass(frozen=True)
class Address:
    """One set of one table.

    Attributes:
        table, set: their names.
        region, endpoint: None takes what AWS's own settings say (``AWS_REGION`` or ``AWS_DEFAULT_REGION``,
            ``AWS_ENDPOINT_URL_DYNAMODB``, ...).
        release: None for the newest.
    """

    table: str
    set: str
    region: str | None = None
    endpoint: str | None = None
    release: int | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `FORM`; raises `SkillError` that shows it."""
        parts = urlsplit(text)
        try:
            options, wrong = aws.read_options(parts.query, {"region", "endpoint", "release"})
        except ValueError as error:
            raise SkillError(f"{text!r}: {error}; the form is {FORM}") from error
        name = parts.path.removeprefix("/")
        if f"{parts.scheme}://" != SCHEME or parts.fragment or not _TABLE.fullmatch(parts.netloc):
            raise SkillError(f"{text!r} names no table; the form is {FORM}")
        if not _SET.fullmatch(name):
            raise SkillError(f"{text!r} names no set of skills; the form is {FORM}")
        if wrong:
            raise SkillError(f"{text!r}: {wrong} is unknown or twice; the form is {FORM}")
        release = options.get("release")
        if release is not None and not re.fullmatch(r"[1-9][0-9]{0,8}", release):
            raise SkillError(f"{text!r}: release must be a whole number from 1")
        return cls(
            table=parts.netloc,
            set=name,
            region=options.get("region"),
            endpoint=options.get("endpoint"),
            release=None if release is None else int(release),
        )

    def __str__(self) -> str:
        options = aws.write_options(region=self.region, endpoint=self.endpoint, release=self.release)
        return f"{SCHEME}{self.table}/{self.set}{options}"


def connect(address: Address) -> Any:
    """A DynamoDB client that waits longer the more often it is throttled."""
    return aws.connect(
        "dynamodb",
        address,
        region=address.region,
        endpoint=address.endpoint,
        error=SkillError,
        unreachable=SkillsUnreachable,
        attempts=ATTEMPTS,
    )


def reporting(address: Address) -> AbstractContextManager[None]:
    """Turns botocore's errors into a `SkillError` that says what to do; `SkillsUnreachable` where waiting may help."""
    return aws.reporting(address, "DynamoDB", SkillError, lambda code: _advice(code, address), SkillsUnreachable)


def is_failed_condition(error: Any) -> bool:
    return error.response["Error"].get("Code") == "ConditionalCheckFailedException"


def _advice(code: str, address: Address) -> str:
    if code == "ResourceNotFoundException":
        return f". Create the table: sdar skills push FOLDER {address} --create-table"
    if code in aws.THROTTLED:
        return f". It was tried {ATTEMPTS} times; raise the table's capacity, or use on-demand capacity"
    if code in aws.REFUSED:
        return ". The role needs dynamodb:Query, GetItem and BatchGetItem on the table, to push also PutItem"
    return ""
