"""How AWS services are reached, and how their errors are told; boto3 is imported when it is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from sdar_verl.errors import SdarError

CONNECT_SECONDS, READ_SECONDS = 5, 20
THROTTLED = (
    "ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded", "SlowDown",
)  # fmt: skip
# what passes by itself, or once the machine's role has given new credentials
PASSING = (*THROTTLED, "Throttling", "ExpiredToken", "ExpiredTokenException", "RequestExpired", "RequestTimeout")
REFUSED = ("AccessDenied", "AccessDeniedException", "UnrecognizedClientException", "ExpiredTokenException")


def read_options(query: str, known: Collection[str]) -> tuple[dict[str, str], str]:
    """Options after the ``?`` of an address, and those with a wrong name or given twice, in words; "" where none is.

    Raises:
        ValueError: `query` is no list of options.
    """
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    options = dict(pairs)
    unknown = sorted(set(options) - set(known))
    wrong = unknown or len(options) != len(pairs)
    return options, (", ".join(unknown) or "an option") if wrong else ""


def write_options(**options: Any) -> str:
    """What `read_options` reads, with its ``?``; those that are None are left out."""
    query = urlencode({k: v for k, v in options.items() if v is not None}, safe=":/", quote_via=quote)
    return f"?{query}" if query else ""


def region_of(region: str | None) -> str | None:
    """`region`, or that of ``AWS_REGION``, which boto3 does not read; None leaves it to boto3."""
    return region or os.environ.get("AWS_REGION") or None


def connect(
    service: str,
    where: Any,
    *,
    region: str | None,
    endpoint: str | None,
    error: type[SdarError],
    attempts: int,
    unreachable: type[SdarError] | None = None,
    **options: Any,
) -> Any:
    """A client that waits longer the more often it is throttled (botocore's adaptive mode).

    Args:
        where: what the user named, for messages.
        region, endpoint: None takes what AWS's own settings say, as in `region_of`.
        error: what is raised; `unreachable`, if given, where a later try may succeed.
        options: more of ``botocore.config.Config``.
    """
    boto3 = _boto3(where, error)
    from botocore.config import Config

    config = Config(
        retries={"mode": "adaptive", "total_max_attempts": attempts},
        user_agent_appid="sdar-verl",
        **{"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS, **options},
    )
    with reporting(where, service, error, unreachable=unreachable):
        session = boto3.session.Session(region_name=region_of(region))
        try:
            return session.client(service, endpoint_url=endpoint, config=config)
        except ValueError as problem:  # botocore's word for a malformed endpoint
            raise error(f"{where}: {problem}; give the endpoint as http://HOST:PORT") from problem


@contextmanager
def reporting(
    where: Any,
    service: str,
    error: type[SdarError],
    advice: Callable[[str], str] = lambda code: "",
    unreachable: type[SdarError] | None = None,
) -> Iterator[None]:
    """Turns botocore's errors into an `error` that says what to do; `advice` adds to it by AWS's error code.

    Where the same may work later, it is `unreachable`, if that is given.
    """
    _boto3(where, error)
    from botocore import exceptions as aws

    try:
        yield
    except aws.NoRegionError as problem:
        raise error(f"{where}: no AWS region; add ?region=..., or set AWS_REGION or AWS_DEFAULT_REGION") from problem
    except (aws.NoCredentialsError, aws.PartialCredentialsError) as problem:
        # a role whose metadata service was slow to answer looks like no role at all
        kind = unreachable if unreachable and isinstance(problem, aws.NoCredentialsError) else error
        raise kind(f"{where}: no AWS credentials ({problem}); give the machine a role, or log in") from problem
    except aws.ClientError as problem:
        said = problem.response["Error"]
        code = said.get("Code", "")
        status = problem.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        kind = unreachable if unreachable and (code in PASSING or status >= 500 or status == 429) else error
        raise kind(f"{where}: {code}: {said.get('Message', '')}{advice(code)}") from problem
    except aws.BotoCoreError as problem:
        passing = (aws.ConnectionError, aws.HTTPClientError, aws.CredentialRetrievalError, aws.MetadataRetrievalError)
        kind = unreachable if unreachable and isinstance(problem, passing) else error
        raise kind(f"{where}: {service} cannot be reached: {problem}") from problem


def _boto3(where: Any, error: type[SdarError]) -> Any:
    try:
        import boto3
        import boto3.session
    except ImportError as missing:
        raise error(f"{where} needs boto3: pip install 'sdar-verl[aws]'") from missing
    return boto3
