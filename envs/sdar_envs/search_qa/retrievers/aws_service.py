"""What the search services of AWS have in common: limits, patience, and errors that say what to do. No engine."""

from __future__ import annotations

import math
import os
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from sdar_envs.search_qa.retrievers.base import Hit, Retriever, RetrieverError, missing_package, settings
from sdar_envs.search_qa.retrievers.patience import Failed, Patience

# Codes of errors that may pass; those of the server (5xx) too.
_TRANSIENT = {
    "ThrottlingException",
    "TooManyRequestsException",
    "ServiceQuotaExceededException",
    "InternalServerException",
    "BadGatewayException",
    "DependencyFailedException",
    "ServiceUnavailableException",
    "RequestTimeout",
}
_REFUSED = {
    "AccessDeniedException",
    "UnrecognizedClientException",
    "ExpiredTokenException",
    "InvalidSignatureException",
}
PATIENCE = {"region": None, "endpoint": None, "timeout": 20.0, "retries": 10, "deadline": 120.0, "probe": True}


class AwsRetriever(Retriever):
    """Asks an AWS service once for each query, again where the failure may pass.

    Throttling, failures of the service and lost connections are tried again with growing pauses; what would not get
    better (no such index, no right to ask, a request that is refused) fails at once. A query longer than the service
    takes is cut at its last blank before the limit, and one without any letter or digit finds nothing without asking.

    Args:
        region, endpoint: None takes what AWS's own settings say (``AWS_REGION`` or ``AWS_DEFAULT_REGION``,
            ``AWS_ENDPOINT_URL_...``).
        timeout: seconds one call may take.
        retries: attempts after the first, and ``deadline``: seconds all attempts of one query may take together. Keep
            ``env.pool.step_timeout`` above it.
        probe: ask once when opening, so that a wrong name or a missing right shows before a run starts.

    Raises:
        RetrieverError: with the service, its reason, and what to do.
    """

    service: ClassVar[str]
    right: ClassVar[str]
    max_query: ClassVar[int]  # characters
    max_passages: ClassVar[int] = 100
    defaults: ClassVar[dict[str, Any]]

    def __init__(self, where: str, **patience: Any) -> None:
        chosen = settings(self.name, PATIENCE, patience)
        for key in ("timeout", "deadline"):
            value = chosen[key]
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise RetrieverError(f"{key} of retriever {self.name} must be a positive number, got {value!r}")
        retries = chosen["retries"]
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise RetrieverError(f"retries of retriever {self.name} must be a whole number from 0, got {retries!r}")
        self._where, self._patience = where, Patience(retries, chosen["deadline"])
        self._client = _client(self.name, self.service, chosen)
        if chosen["probe"]:
            with self._patience.short():
                self.search(["probe"], 1)

    @classmethod
    def open(cls, config: Mapping[str, Any]) -> Retriever:
        return cls(**settings(cls.name, {**cls.defaults, **PATIENCE}, config))

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        if not 1 <= k <= self.max_passages:
            raise RetrieverError(f"k is {k}; {self.name} gives 1 to {self.max_passages} passages")
        return [self._find(_cut(query, self.max_query), k) if any(map(str.isalnum, query)) else [] for query in queries]

    def close(self) -> None:
        self._client.close()

    @abstractmethod
    def _page(self, query: str, k: int, token: Any) -> tuple[list[Hit], Any]:
        """One call: hits, and what asks for the next page (None: there is none). `token` is None for the first."""

    def _find(self, query: str, k: int) -> list[Hit]:
        found: list[Hit] = []
        token, end = None, time.monotonic() + self._patience.deadline
        while True:
            hits, following = self._patience.ask(
                lambda token=token: self._once(lambda: self._page(query, k, token)), end, lambda: self._where
            )
            found += hits
            if following is None or len(found) >= k:
                return found[:k]
            if following == token or time.monotonic() >= end:
                raise RetrieverError(f"{self._where} has ever more pages without {k} passages of text")
            token = following

    def _once(self, ask: Callable[[], tuple[list[Hit], Any]]) -> tuple[list[Hit], Any]:
        from botocore import exceptions as aws

        try:
            return ask()
        except aws.ClientError as error:
            said = error.response.get("Error", {})
            code, message = said.get("Code", ""), said.get("Message", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code in _TRANSIENT or status >= 500:
                raise Failed(f"{code}: {message}") from error
            raise RetrieverError(f"{self._where}: {code}: {message}{self._advice(code)}") from error
        except (aws.NoCredentialsError, aws.PartialCredentialsError) as error:
            raise RetrieverError(
                f"{self._where}: no AWS credentials ({error}); give the machine a role, or log in"
            ) from error
        except (aws.HTTPClientError, aws.ConnectionError) as error:
            raise Failed(f"it cannot be reached: {error}") from error
        except aws.BotoCoreError as error:
            raise RetrieverError(f"{self._where}: {error}") from error

    def _advice(self, code: str) -> str:
        if code in _REFUSED:
            return f". The role needs {self.right} on it"
        if code == "ResourceNotFoundException":
            return f". Look at its id and at the region, which is {self._client.meta.region_name}"
        return ""


def text_field(item: Any, key: str, where: str) -> str:
    """``item[key]``, which must be a text."""
    value = item.get(key) if isinstance(item, Mapping) else None
    if not isinstance(value, str):
        raise RetrieverError(f"{where} answered a passage without {key}: {str(item)[:200]!r}")
    return value


def titled(title: str, text: str) -> str:
    """The form that passages have here: the quoted title in the first line, unless the text brings it itself."""
    first = text.lstrip().partition("\n")[0].rstrip()
    if not title or (len(first) > 2 and first[0] == first[-1] == '"'):
        return text
    return '"' + title.replace('"', "'") + '"\n' + text


def _cut(query: str, limit: int) -> str:
    query = query.strip()
    if len(query) <= limit:
        return query
    shorter, blank, _ = query[: limit + 1].rpartition(" ")
    return shorter.rstrip() if blank and shorter.strip() else query[:limit]


def _client(name: str, service: str, chosen: Mapping[str, Any]) -> Any:
    try:
        import boto3.session
        from botocore import exceptions as aws
        from botocore.config import Config
    except ImportError as error:
        raise missing_package("boto3", "aws") from error
    config = Config(
        retries={"total_max_attempts": 1},  # ours know of the deadline
        connect_timeout=min(5.0, chosen["timeout"]),
        read_timeout=chosen["timeout"],
        user_agent_appid="sdar-envs",
    )
    region = chosen["region"] or os.environ.get("AWS_REGION") or None  # which boto3 does not read
    try:
        session = boto3.session.Session(region_name=region)
        return session.client(service, endpoint_url=chosen["endpoint"], config=config)
    except aws.NoRegionError as error:
        raise RetrieverError(
            f"retriever {name} has no AWS region: set region, AWS_REGION or AWS_DEFAULT_REGION"
        ) from error
    except (aws.BotoCoreError, ValueError) as error:  # ValueError: a malformed endpoint
        raise RetrieverError(f"retriever {name}: {error}") from error
