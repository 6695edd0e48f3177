"""How a DynamoDB store is addressed and reached."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from sdar_verl.skills.errors import SkillError

SCHEME = "dynamodb://"
FORM = "dynamodb://TABLE/SET[?region=...&endpoint=...&release=N]"
ATTEMPTS, CONNECT_SECONDS, READ_SECONDS = 8, 5, 20
_TABLE = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_SET = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")


@dataclass(frozen=True)
class Address:
    """One set of one table.

    Attributes:
        table, set: their names.
        region, endpoint: None takes what AWS's own settings say (``AWS_REGION``, ``AWS_ENDPOINT_URL_DYNAMODB``, ...).
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
            pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        except ValueError as error:
            raise SkillError(f"{text!r}: {error}; the form is {FORM}") from error
        options = dict(pairs)
        unknown = sorted(set(options) - {"region", "endpoint", "release"})
        name = parts.path.removeprefix("/")
        if f"{parts.scheme}://" != SCHEME or parts.fragment or not _TABLE.fullmatch(parts.netloc):
            raise SkillError(f"{text!r} names no table; the form is {FORM}")
        if not _SET.fullmatch(name):
            raise SkillError(f"{text!r} names no set of skills; the form is {FORM}")
        if unknown or len(options) != len(pairs):
            raise SkillError(f"{text!r}: {', '.join(unknown) or 'an option'} is unknown or twice; the form is {FORM}")
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
        options = {"region": self.region, "endpoint": self.endpoint, "release": self.release}
        query = urlencode({k: v for k, v in options.items() if v is not None}, safe=":/", quote_via=quote)
        return f"{SCHEME}{self.table}/{self.set}" + (f"?{query}" if query else "")


def connect(address: Address) -> Any:
    """A DynamoDB client that waits longer the more often it is throttled (botocore's adaptive mode)."""
    boto3 = _boto3()
    from botocore.config import Config

    config = Config(
        retries={"mode": "adaptive", "total_max_attempts": ATTEMPTS},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        user_agent_appid="sdar-verl",
    )
    with reporting(address):
        session = boto3.session.Session(region_name=address.region)
        try:
            return session.client("dynamodb", endpoint_url=address.endpoint, config=config)
        except ValueError as error:  # botocore's word for a malformed endpoint
            raise SkillError(f"{address}: {error}; give the endpoint as http://HOST:PORT") from error


@contextmanager
def reporting(address: Address) -> Iterator[None]:
    """Turns botocore's errors into a `SkillError` that says what to do."""
    _boto3()
    from botocore import exceptions as aws

    try:
        yield
    except aws.NoRegionError as error:
        raise SkillError(f"{address}: no AWS region; add ?region=..., or set AWS_REGION") from error
    except (aws.NoCredentialsError, aws.PartialCredentialsError) as error:
        raise SkillError(f"{address}: no AWS credentials ({error}); give the machine a role, or log in") from error
    except aws.ClientError as error:
        code = error.response["Error"].get("Code", "")
        said = error.response["Error"].get("Message", "")
        raise SkillError(f"{address}: {code}: {said}{_advice(code, address)}") from error
    except aws.BotoCoreError as error:
        raise SkillError(f"{address}: DynamoDB cannot be reached: {error}") from error


def is_failed_condition(error: Any) -> bool:
    return error.response["Error"].get("Code") == "ConditionalCheckFailedException"


def _advice(code: str, address: Address) -> str:
    if code == "ResourceNotFoundException":
        return f". Create the table: sdar skills push FOLDER {address} --create-table"
    if code in ("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"):
        return f". It was tried {ATTEMPTS} times; raise the table's capacity, or use on-demand capacity"
    if code in ("AccessDeniedException", "UnrecognizedClientException", "ExpiredTokenException"):
        return ". The role needs dynamodb:Query, GetItem and BatchGetItem on the table, to push also PutItem"
    return ""


def _boto3() -> Any:
    try:
        import boto3
        import boto3.session
    except ImportError as error:
        raise SkillError("skills in DynamoDB need boto3: pip install 'sdar-verl[aws]'") from error
    return boto3
