"""Where skills are kept: a protocol, a store in memory, and a folder of Markdown files."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

from sdar_verl.skills.errors import SkillError
from sdar_verl.skills.markdown import parse_skill
from sdar_verl.skills.skill import Skill


@runtime_checkable
class SkillStore(Protocol):
    """A fixed, ordered set of skills."""

    def all(self) -> tuple[Skill, ...]:
        """Every skill: general ones first, then by task type, each by id."""
        ...

    def get(self, skill_id: str) -> Skill:
        """The skill called `skill_id`; raises `SkillError` naming the known ids."""
        ...

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) over ids, versions and contents; equal hashes mean equal skills."""
        ...


class MemoryStore:
    """Skills held in memory.

    Args:
        skills: the skills, in any order.
        env: if given, every skill must be for this environment.
        task_types: if given, the environment's own categories; any other task type is refused.

    Raises:
        SkillError: no skills at all, two with one id, an unknown task type or another environment's skill; all listed.
    """

    def __init__(self, skills: Iterable[Skill], *, env: str | None = None, task_types: Collection[str] | None = None):
        named = [(f"skill {skill.id!r}", skill) for skill in skills]
        problems = _problems(named, env, task_types)
        if not named:
            problems.append("no skills were given")
        if problems:
            raise SkillError("; ".join(problems))
        self._keep(skill for _, skill in named)

    def _keep(self, skills: Iterable[Skill]) -> None:
        ordered = sorted(skills, key=lambda s: (s.task_type is not None, s.task_type or "", s.id))
        self._skills = {skill.id: skill for skill in ordered}

    def all(self) -> tuple[Skill, ...]:
        return tuple(self._skills.values())

    def get(self, skill_id: str) -> Skill:
        if skill_id not in self._skills:
            raise SkillError(f"no skill {skill_id!r}; known: {', '.join(sorted(self._skills))}")
        return self._skills[skill_id]

    @property
    def content_hash(self) -> str:
        lines = sorted(f"{s.id} {s.version} {s.content_hash}" for s in self._skills.values())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._skills)


class DirectoryStore(MemoryStore):
    """All ``*.md`` files of one folder, each one skill (see `sdar_verl.skills.markdown` for the format).

    Args:
        path: the folder; one folder is one set, so sub-folders may hold no Markdown files.
        env, task_types: as for `MemoryStore`.

    Raises:
        SkillError: the folder is missing or empty, or files are broken; the message lists every broken file.
    """

    def __init__(self, path: str | Path, *, env: str | None = None, task_types: Collection[str] | None = None):
        self.path = Path(path)
        if not self.path.is_dir():
            raise SkillError(f"no skill folder {self.path}; give a folder of *.md files")
        files = sorted(p for p in self.path.rglob("*.md") if not p.name.startswith("."))
        if not files:
            raise SkillError(f"no *.md files in the skill folder {self.path}")
        named: list[tuple[str, Skill]] = []
        problems: list[str] = []
        for file in files:
            name = str(file.relative_to(self.path))
            try:
                named.append((name, self._read(file)))
            except SkillError as error:
                problems.append(f"{name}: {error}")
        problems += _problems(named, env, task_types)
        if problems:
            lines = "\n".join(f"  {problem}" for problem in problems)
            raise SkillError(f"broken skill folder {self.path}, {len(problems)} to correct:\n{lines}")
        self._keep(skill for _, skill in named)

    def _read(self, file: Path) -> Skill:
        if file.parent != self.path:
            raise SkillError("lies in a sub-folder; one folder is one set, so move it up or load its folder instead")
        try:
            source = file.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise SkillError(f"is not UTF-8 (byte {error.start}); save it as UTF-8") from error
        except OSError as error:
            raise SkillError(f"cannot be read: {error.strerror}") from error
        return parse_skill(source)


def _problems(named: list[tuple[str, Skill]], env: str | None, task_types: Collection[str] | None) -> list[str]:
    """What is wrong with a set of skills taken together; `named` gives each skill the name to report it by."""
    problems = []
    first: dict[str, str] = {}
    for name, skill in named:
        if skill.id in first:
            problems.append(f"{name}: id {skill.id!r} is taken by {first[skill.id]}; give it another id")
        first.setdefault(skill.id, name)
        if env is not None and skill.env != env:
            problems.append(f"{name}: is for env {skill.env!r}, this set is for {env!r}; move it or correct its env")
        elif task_types is not None and skill.task_type is not None and skill.task_type not in task_types:
            known = ", ".join(sorted(task_types))
            problems.append(
                f"{name}: unknown task type {skill.task_type!r}; known: {known}, or null for a general skill"
            )
    return problems
