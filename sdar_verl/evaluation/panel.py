"""A panel is the fixed, ordered list of tasks that every validation plays.

Two success rates can be compared only when they come from the same tasks, so a panel carries a hash of its content
and everything that mixes numbers of two runs compares the hashes first.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sdar_envs.base import TaskRef

from sdar_verl.errors import SdarError
from sdar_verl.evaluation.files import write_atomic

_FORMAT = 1


class PanelError(SdarError):
    """A panel cannot be built, read, or is not the one that was expected."""


@dataclass(frozen=True)
class Panel:
    """Tasks in a fixed order.

    Attributes:
        env: name of the environment family.
        split: the one split that all tasks belong to.
        tasks: at least one task; ids are unique. Paths are not part of the panel's identity.
    """

    env: str
    split: str
    tasks: tuple[TaskRef, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))
        if not self.tasks:
            raise PanelError("a panel needs at least one task; check the data folder and the split's name")
        doubled = sorted(task for task, count in Counter(t.id for t in self.tasks).items() if count > 1)
        if doubled:
            raise PanelError(f"a panel names each task once; doubled: {_some(doubled)}")
        foreign = sorted({t.split for t in self.tasks} - {self.split})
        if foreign:
            raise PanelError(f"a panel of split {self.split!r} cannot hold tasks of {_some(foreign)}")

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def hash(self) -> str:
        """SHA-256 (64 hex digits) over environment, split and the ordered (id, task type) pairs."""
        content = [self.env, self.split, [[t.id, t.task_type] for t in self.tasks]]
        return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()

    @property
    def short_hash(self) -> str:
        """The first 12 hex digits of `hash`, the form that logs and reports print."""
        return self.hash[:12]

    @property
    def type_counts(self) -> dict[str, int]:
        """Number of tasks per task type, sorted by name."""
        return dict(sorted(Counter(t.task_type for t in self.tasks).items()))

    def describe(self) -> str:
        """One line for a log: size, hash and tasks per type."""
        types = ", ".join(f"{name} {count}" for name, count in self.type_counts.items())
        return f"panel {self.short_hash}: {len(self)} tasks of {self.env}/{self.split} ({types})"

    @classmethod
    def from_tasks(cls, tasks: Iterable[TaskRef], size: int | None, seed: int, *, env: str) -> Panel:
        """Choose `size` tasks, as evenly over the task types as they allow.

        The choice depends on ids, types and `seed` alone, not on the order of `tasks`. Types take turns, so every
        prefix of the panel is balanced too, and a smaller panel of the same seed is a prefix of a larger one.

        Args:
            tasks: candidates, all of one split, ids unique.
            size: number of tasks to take; None takes all.
            seed: any integer.
            env: name of the environment family.

        Raises:
            PanelError: no candidates, more wanted than there are, several splits or doubled ids.
        """
        everything = cls(env=env, split=_only_split(tasks := list(tasks)), tasks=tuple(tasks))
        if size is not None and not 1 <= size <= len(everything):
            raise PanelError(
                f"a panel of {size} tasks was asked for, but {env}/{everything.split} has {len(everything)}; "
                f"ask for 1 to {len(everything)} or provide more games"
            )
        queues: dict[str, list[TaskRef]] = {}
        for task in sorted(everything.tasks, key=lambda t: _draw(seed, t.id), reverse=True):
            queues.setdefault(task.task_type, []).append(task)
        order = sorted(queues, key=lambda name: _draw(seed, name))
        chosen: list[TaskRef] = []
        while any(queues.values()):
            chosen += [queues[name].pop() for name in order if queues[name]]
        return cls(env=env, split=everything.split, tasks=tuple(chosen[:size]))

    def save(self, path: Path | str) -> None:
        """Write the panel as JSON, atomically. Paths of games are left out: they differ between machines."""
        content = {
            "format": _FORMAT,
            "env": self.env,
            "split": self.split,
            "hash": self.hash,
            "tasks": [{"id": t.id, "task_type": t.task_type} for t in self.tasks],
        }
        write_atomic(Path(path), json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path | str) -> Panel:
        """Read a saved panel; its tasks have empty paths until `resolve` is called.

        Raises:
            PanelError: unreadable, of another format, or its content does not give the hash it carries.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as err:
            raise PanelError(f"cannot read the panel {path}: {err}") from err
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise PanelError(f"{path} is no panel of format {_FORMAT}")
        try:
            env, split, saved = content["env"], content["split"], content["hash"]
            tasks = tuple(TaskRef(t["id"], t["task_type"], split) for t in content["tasks"])
        except (KeyError, TypeError) as err:
            raise PanelError(f"{path} misses a field or has one of the wrong kind: {err}") from err
        panel = cls(env=env, split=split, tasks=tasks)
        if panel.hash != saved:
            raise PanelError(f"{path} was changed: it carries hash {saved[:12]} but its tasks give {panel.short_hash}")
        return panel

    def resolve(self, available: Iterable[TaskRef]) -> Panel:
        """The same panel with the paths of `available` filled in.

        Raises:
            PanelError: a task is missing or has another type.
        """
        known = {(t.id, t.task_type): t for t in available if t.split == self.split}
        missing = [t.id for t in self.tasks if (t.id, t.task_type) not in known]
        if missing:
            raise PanelError(
                f"{len(missing)} of {len(self)} panel tasks are not among the {self.env}/{self.split} games "
                f"(or have another type): {_some(missing)}; point the data folder at the games the panel was made from"
            )
        return replace(self, tasks=tuple(known[t.id, t.task_type] for t in self.tasks))

    def require_same(self, other: Panel, mine: str = "this run", theirs: str = "the other") -> None:
        """Raise `PanelError` that names the differences unless `other` has the same content in the same order."""
        if self.hash == other.hash:
            return
        ours, others = {t.id for t in self.tasks}, {t.id for t in other.tasks}
        parts = [f"{mine} has {self.describe()}", f"{theirs} has {other.describe()}"]
        if ours == others:
            parts.append("the same ids, in another order, split or with other types")
        else:
            parts.append(f"only in {mine}: {_some(sorted(ours - others))}")
            parts.append(f"only in {theirs}: {_some(sorted(others - ours))}")
        raise PanelError("success rates on different panels cannot be compared. " + "; ".join(parts))


def _only_split(tasks: Sequence[TaskRef]) -> str:
    splits = sorted({t.split for t in tasks})
    if len(splits) != 1:
        raise PanelError(f"a panel needs tasks of exactly one split, got {_some(splits)}")
    return splits[0]


def _draw(seed: int, name: str) -> bytes:
    """A random-looking sort key that is the same on every machine and Python version."""
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()


def _some(names: Sequence[str], limit: int = 5) -> str:
    if not names:
        return "none"
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
