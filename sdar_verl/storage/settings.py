"""``sdar.checkpoints`` and ``sdar.spot``, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sdar_verl.errors import ConfigError
from sdar_verl.storage.errors import StorageError
from sdar_verl.storage.place import Place

ON_NOTICE = ("finish", "abandon")
ON_REBALANCE = ("ignore", "save", "stop")
MIB = 1 << 20


@dataclass(frozen=True)
class CheckpointSettings:
    """Attributes:
    s3: address of this run's place, see `sdar_verl.storage.place.FORM`; None for none.
    keep: sound checkpoints kept there; those on the machine are ``trainer.max_actor_ckpt_to_keep``.
    parallel: parts in flight at once.
    max_bandwidth: MiB/s, None for no limit.
    attempts: tries of one checkpoint's upload, each with botocore's own tries of each request in it.
    verify: read a checkpoint whole and compare hashes before going on from it; otherwise sizes alone.
    shared_folder: the run's folder is the same on all nodes.
    """

    s3: str | None
    keep: int
    parallel: int
    max_bandwidth: float | None
    attempts: int
    verify: bool
    shared_folder: bool

    def __post_init__(self) -> None:
        for name in ("keep", "parallel", "attempts"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"sdar.checkpoints.{name} must be a whole number from 1, got {value!r}")
        if self.max_bandwidth is not None and not _positive(self.max_bandwidth):
            raise ConfigError(f"sdar.checkpoints.max_bandwidth must be MiB/s or null, got {self.max_bandwidth!r}")
        for name in ("verify", "shared_folder"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"sdar.checkpoints.{name} must be true or false, got {getattr(self, name)!r}")
        if self.s3 is not None:
            try:
                Place.parse(self.s3)
            except StorageError as error:
                raise ConfigError(f"sdar.checkpoints.s3: {error}") from error

    @property
    def place(self) -> Place | None:
        """Where in S3."""
        return None if self.s3 is None else Place.parse(self.s3)

    @property
    def bandwidth(self) -> float | None:
        """Bytes a second."""
        return None if self.max_bandwidth is None else self.max_bandwidth * MIB


@dataclass(frozen=True)
class SpotSettings:
    """Attributes:
    imds: ask the instance's metadata service for notices.
    sigterm: take SIGTERM as a notice.
    on_notice: ``finish`` the running step, or ``abandon`` it.
    on_rebalance: what a rebalance recommendation does: ``ignore``, ``save`` a checkpoint, or ``stop`` like a notice.
    poll_seconds: between two questions to the metadata service.
    upload_seconds: most that an upload may take once the run is stopping.
    mtbf_hours: mean time between interruptions, from which the time between checkpoints follows where
        ``trainer.save_freq`` is off; None leaves it off.
    """

    imds: bool
    sigterm: bool
    on_notice: str
    on_rebalance: str
    poll_seconds: float
    upload_seconds: float
    mtbf_hours: float | None

    def __post_init__(self) -> None:
        for name in ("imds", "sigterm"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"sdar.spot.{name} must be true or false, got {getattr(self, name)!r}")
        for name, known in (("on_notice", ON_NOTICE), ("on_rebalance", ON_REBALANCE)):
            if getattr(self, name) not in known:
                raise ConfigError(f"sdar.spot.{name}={getattr(self, name)!r} is unknown; known: {', '.join(known)}")
        if not (_positive(self.poll_seconds) and 0.05 <= self.poll_seconds <= 60):
            raise ConfigError("sdar.spot.poll_seconds must lie between 0.05 and 60")
        if not _positive(self.upload_seconds):
            raise ConfigError(f"sdar.spot.upload_seconds must be above 0, got {self.upload_seconds!r}")
        if self.mtbf_hours is not None and not _positive(self.mtbf_hours):
            raise ConfigError(f"sdar.spot.mtbf_hours must be above 0 or null, got {self.mtbf_hours!r}")

    @property
    def watched(self) -> bool:
        """Whether anything can end the run with a notice."""
        return self.imds or self.sigterm


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
