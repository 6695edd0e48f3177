"""How AWS services are reached, and how their errors are told; boto3 is imported when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sdar_verl.errors import SdarError

CONNECT_SECONDS, READ_SECONDS = 5, 20
THROTTLED = (
    "ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded", "SlowDown",
)  # fmt: skip
REFUSED = ("AccessDenied", "AccessDeniedException", "UnrecognizedClientException", "ExpiredTokenException")


def connect(
    service: str,
    where: Any,
    *,
    region: str | None,
    endpoint: str | None,
    error: type[SdarError],
    attempts: int,
    **options: Any,
) -> Any:
    """A client that waits longer the more often it is throttled (botocore's adaptive mode).

    Args:
        where: what the user named, for messages.
        region, endpoint: None takes what AWS's own settings say.
        error: what is raised.
        options: more of ``botocore.config.Config``.
    """
    boto3 = _boto3(where, error)
    from botocore.config import Config

    config = Config(
        retries={"mode": "adaptive", "total_max_attempts": attempts},
        user_agent_appid="sdar-verl",
        **{"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS, **options},
    )
    with reporting(where, service, error):
        session = boto3.session.Session(region_name=region)
        try:
            return session.client(service, endpoint_url=endpoint, config=config)
        except ValueError as problem:  # botocore's word for a malformed endpoint
            raise error(f"{where}: {problem}; give the endpoint as http://HOST:PORT") from problem


@contextmanager
def reporting(
    where: Any, service: str, error: type[SdarError], advice: Callable[[str], str] = lambda code: ""
) -> Iterator[None]:
    """Turns botocore's errors into an `error` that says what to do; `advice` adds to it by AWS's error code."""
    _boto3(where, error)
    from botocore import exceptions as aws

    try:
        yield
    except aws.NoRegionError as problem:
        raise error(f"{where}: no AWS region; add ?region=..., or set AWS_REGION") from problem
    except (aws.NoCredentialsError, aws.PartialCredentialsError) as problem:
        raise error(f"{where}: no AWS credentials ({problem}); give the machine a role, or log in") from problem
    except aws.ClientError as problem:
        said = problem.response["Error"]
        code = said.get("Code", "")
        raise error(f"{where}: {code}: {said.get('Message', '')}{advice(code)}") from problem
    except aws.BotoCoreError as problem:
        raise error(f"{where}: {service} cannot be reached: {problem}") from problem


def _boto3(where: Any, error: type[SdarError]) -> Any:
    try:
        import boto3
        import boto3.session
    except ImportError as missing:
        raise error(f"{where} needs boto3: pip install 'sdar-verl[aws]'") from missing
    return boto3
