"""How a run's place in S3 is addressed and reached."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sdar_verl import aws
from sdar_verl.storage.errors import StorageError, StorageUnreachable

FORM = "s3://BUCKET/PREFIX[?region=...&endpoint=...]"
ATTEMPTS = 8  # of each request
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*")


@dataclass(frozen=True)
class Place:
    """Where one run's checkpoints lie in S3.

    Attributes:
        bucket, prefix: names; the prefix without ``/`` at its ends.
        region, endpoint: None takes what AWS's own settings say (``AWS_REGION`` or ``AWS_DEFAULT_REGION``,
            ``AWS_ENDPOINT_URL_S3``, ...).
    """

    bucket: str
    prefix: str
    region: str | None = None
    endpoint: str | None = None

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read `FORM`; raises `StorageError` that shows it."""
        parts = urlsplit(text)
        try:
            options, wrong = aws.read_options(parts.query, {"region", "endpoint"})
        except ValueError as error:
            raise StorageError(f"{text!r}: {error}; the form is {FORM}") from error
        prefix = parts.path.strip("/")
        if parts.scheme != "s3" or parts.fragment or not _BUCKET.fullmatch(parts.netloc):
            raise StorageError(f"{text!r} names no bucket; the form is {FORM}")
        if not _PREFIX.fullmatch(prefix):
            raise StorageError(f"{text!r} needs a prefix of its own for this run; the form is {FORM}")
        if wrong:
            raise StorageError(f"{text!r}: {wrong} is unknown or twice; the form is {FORM}")
        return cls(parts.netloc, prefix, options.get("region"), options.get("endpoint"))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}" + aws.write_options(region=self.region, endpoint=self.endpoint)

    def key(self, *parts: str) -> str:
        """The object key of something under the prefix."""
        return "/".join((self.prefix, *parts))

    def connect(self, connections: int = 10) -> Any:
        """An S3 client for up to `connections` requests at once; raises `StorageError`."""
        return aws.connect(
            "s3",
            self,
            region=self.region,
            endpoint=self.endpoint,
            error=StorageError,
            unreachable=StorageUnreachable,
            attempts=ATTEMPTS,
            max_pool_connections=max(10, connections),
        )

    def reporting(self) -> AbstractContextManager[None]:
        """Turns botocore's errors into a `StorageError` that says what to do."""
        return aws.reporting(self, "S3", StorageError, self._advice, StorageUnreachable)

    def _advice(self, code: str) -> str:
        if code == "NoSuchBucket":
            return f". Create the bucket {self.bucket}, or name another one in sdar.checkpoints.s3"
        if code in (*aws.REFUSED, "InvalidAccessKeyId", "SignatureDoesNotMatch", "403"):
            return (
                f". The role needs s3:ListBucket and s3:ListBucketMultipartUploads on the bucket, and s3:GetObject, "
                f"PutObject, DeleteObject, AbortMultipartUpload and ListMultipartUploadParts under {self.prefix}/"
            )
        if code == "RequestTimeTooSkewed":
            return ". The clock of this machine is wrong; set it (chrony, or timedatectl set-ntp true)"
        if code in aws.THROTTLED:
            return f". It was tried {ATTEMPTS} times; lower sdar.checkpoints.parallel"
        return ""
