"""How often each skill was retrieved for each task type, and how the episodes went."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sdar_verl.evaluation.files import write_atomic
from sdar_verl.skills.errors import SkillError

FILE = "skill_statistics.json"


@dataclass(frozen=True)
class Outcome:
    """One finished training episode: what was retrieved for which task type, and how it went."""

    task_type: str
    skills: tuple[str, ...]
    score: float


@dataclass(frozen=True)
class Tally:
    """Attributes:
    count: episodes.
    total: sum of their scores.
    """

    count: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / self.count


@dataclass(frozen=True)
class SkillStatistics:
    """Everything seen up to a training step.

    Attributes:
        step: the last training step whose episodes are counted; 0 before training.
        tallies: by task type and skill id.
    """

    step: int = 0
    tallies: Mapping[str, Mapping[str, Tally]] = field(default_factory=dict)

    def tally(self, task_type: str, skill_id: str) -> Tally:
        return self.tallies.get(task_type, {}).get(skill_id, Tally())

    def after(self, step: int, outcomes: Iterable[Outcome]) -> SkillStatistics:
        """With the episodes of `step` added; their order does not matter, to the last bit.

        Raises:
            SkillError: `step` is neither this step nor the next one, or a score is no number.
        """
        if step not in (self.step, self.step + 1):
            raise SkillError(f"skill statistics of step {self.step} cannot be followed by step {step}; a step is lost")
        scores: dict[tuple[str, str], list[float]] = {}
        for outcome in outcomes:
            if not math.isfinite(outcome.score):
                raise SkillError(f"an episode of {outcome.task_type} has the score {outcome.score}, which is no number")
            for skill_id in dict.fromkeys(outcome.skills):
                scores.setdefault((outcome.task_type, skill_id), []).append(outcome.score)
        tallies = {task_type: dict(own) for task_type, own in self.tallies.items()}
        for (task_type, skill_id), seen in scores.items():
            old = self.tally(task_type, skill_id)
            total = old.total + math.fsum(seen)
            tallies.setdefault(task_type, {})[skill_id] = Tally(old.count + len(seen), total)
        return SkillStatistics(step, tallies)

    def save(self, folder: Path | str) -> Path:
        """Write ``<folder>/skill_statistics.json`` atomically; numbers read back exactly."""
        path = Path(folder) / FILE
        tallies = {
            task_type: {skill_id: {"count": t.count, "total": t.total} for skill_id, t in own.items()}
            for task_type, own in self.tallies.items()
        }
        content = json.dumps({"step": self.step, "tallies": tallies}, indent=1, sort_keys=True, allow_nan=False)
        write_atomic(path, content + "\n")
        return path

    @classmethod
    def load(cls, folder: Path | str) -> SkillStatistics:
        """Read what `save` wrote; raises `SkillError` if it is missing or damaged."""
        path = Path(folder) / FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            tallies = {
                task_type: {skill_id: _tally(values) for skill_id, values in own.items()}
                for task_type, own in content["tallies"].items()
            }
            if type(content["step"]) is not int or content["step"] < 0:
                raise ValueError(f"step {content['step']!r}")
            return cls(content["step"], tallies)
        except OSError as error:
            raise SkillError(f"cannot read the skill statistics {path}: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SkillError(f"the skill statistics {path} are damaged: {error!r}") from error


def _tally(values: Mapping[str, float]) -> Tally:
    count, total = values["count"], float(values["total"])
    if type(count) is not int or count < 1 or not math.isfinite(total):
        raise ValueError(f"count {count!r}, total {total!r}")
    return Tally(count, total)
