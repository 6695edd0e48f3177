"""What a teacher server is recognised by: the tokenizer that it cuts with, and how it scores a fixed sequence."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sdar_verl.evaluation.files import write_atomic
from sdar_verl.teacher.errors import TeacherRejected
from sdar_verl.teacher.probes import PROBES
from sdar_verl.teacher.remote.protocol import ScoreRow

FILE = "teacher_fingerprint.json"  # in the run's folder: what its first start saw
PROBE_TOKENS = 48


@dataclass(frozen=True)
class Fingerprint:
    """Attributes:
    cuts: token ids of each of `PROBES`.
    log_probs: of the probe's tokens after its first, in nats; None while no teacher has been seen.
    """

    cuts: tuple[tuple[int, ...], ...]
    log_probs: tuple[float, ...] | None = None

    @property
    def probe(self) -> ScoreRow:
        """The sequence that is scored: the probes one after the other, at most `PROBE_TOKENS` tokens."""
        ids = [token for cut in self.cuts for token in cut][:PROBE_TOKENS]
        return ScoreRow(tuple(ids[:1]), tuple(ids[1:]))

    @property
    def tokenizer(self) -> str:
        """SHA-256 over the cuts."""
        return hashlib.sha256(json.dumps(self.cuts).encode()).hexdigest()

    def with_scores(self, log_probs: Sequence[float]) -> Fingerprint:
        """The same with these log-probabilities."""
        return replace(self, log_probs=tuple(log_probs))

    def check_cuts(self, cuts: Sequence[Sequence[int]]) -> None:
        """Raises `TeacherRejected` where a server cuts a probe into other tokens."""
        for text, ours, theirs in zip(PROBES, self.cuts, cuts, strict=True):
            if list(ours) != list(theirs):
                raise TeacherRejected(
                    f"its tokenizer is another one: {text!r} is {len(ours)} tokens here and {len(theirs)} there, or "
                    "other ones"
                )

    def distance(self, log_probs: Sequence[float]) -> float:
        """Mean absolute difference to other log-probabilities of the probe, in nats; infinite where one is."""
        if self.log_probs is None or len(self.log_probs) != len(log_probs):
            raise ValueError("the two scores are not of one probe")
        found = sum(abs(one - other) for one, other in zip(self.log_probs, log_probs, strict=True)) / len(log_probs)
        return found if math.isfinite(found) else math.inf

    def check_scores(self, log_probs: Sequence[float], tolerance: float) -> None:
        """Raises `TeacherRejected` where they are further away than `tolerance` nats a token in the mean."""
        if (found := self.distance(log_probs)) > tolerance:
            raise TeacherRejected(
                f"its weights are others: the probe's log-probabilities differ by {found:.3g} nats a token in the "
                f"mean, allowed are {tolerance:g}"
            )

    def save(self, path: Path) -> None:
        """Write it as JSON, for a run that goes on."""
        write_atomic(path, json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, path: Path) -> Fingerprint:
        """Read it back; raises `TeacherRejected` where the file is damaged."""
        try:
            found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(tuple(map(tuple, found["cuts"])), tuple(found["log_probs"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TeacherRejected(
                f"the teacher's fingerprint in {path} cannot be read: {error}; put it back from another copy of the run"
            ) from error


def fingerprint_of(tokenizer: Any) -> Fingerprint:
    """What a server with `tokenizer` must show; its scores are not known yet."""
    return Fingerprint(tuple(tuple(tokenizer.encode(text, add_special_tokens=False)) for text in PROBES))
