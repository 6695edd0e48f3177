"""The exact skills of a run: named by its manifest, kept in its folder, the same when it goes on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdar_verl.evaluation.files import write_atomic
from sdar_verl.skills.errors import MissingSkillError, SkillError
from sdar_verl.skills.markdown import format_skill
from sdar_verl.skills.skill import Skill
from sdar_verl.skills.store import DirectoryStore, SkillStore

FOLDER = "skills"  # of a run folder


@dataclass(frozen=True)
class Pin:
    """One version of one skill and the hash of its content."""

    id: str
    version: int
    hash: str

    @property
    def key(self) -> tuple[str, int]:
        return self.id, self.version


def pins_of(skills: Iterable[Skill]) -> tuple[Pin, ...]:
    """The pins of `skills`, by id."""
    return tuple(sorted((Pin(s.id, s.version, s.content_hash) for s in skills), key=lambda pin: pin.id))


def manifest_pins(manifest: Mapping[str, Any]) -> tuple[Pin, ...]:
    """The pins that a run's manifest names; raises `SkillError` if it names none in the known form."""
    try:
        pins = [Pin(str(entry["id"]), int(entry["version"]), str(entry["hash"])) for entry in manifest["skills"]]
    except (KeyError, TypeError, ValueError) as error:
        raise SkillError(f"the run's manifest does not name its skills ({error!r}); it is damaged") from error
    return tuple(sorted(pins, key=lambda pin: pin.id))


def require_pins(skills: Iterable[Skill], pins: Iterable[Pin], where: str, *, exactly: bool = False) -> None:
    """Raise unless `skills` hold every pinned version with its content; with `exactly`, unless they hold no others.

    Raises:
        MissingSkillError: a pinned version is gone.
        SkillError: a version has another content, or there are others.
    """
    found = {(s.id, s.version): s.content_hash for s in skills}
    wanted = {pin.key: pin.hash for pin in pins}
    gone = [_name(key) for key in wanted if key not in found]
    if gone:
        raise MissingSkillError(
            f"{where} no longer holds {', '.join(gone)}; restore it, or start a run of its own with the skills of today"
        )
    changed = [_name(key) for key in wanted if found[key] != wanted[key]]
    if changed:
        raise SkillError(f"{where}: the content of {', '.join(changed)} is not what was pinned; restore it")
    others = [_name(key) for key in found if key not in wanted]
    if exactly and others:
        raise SkillError(f"{where} also holds {', '.join(others)}, which the run did not begin with; take it out")


def keep(run_dir: Path | str, skills: Sequence[Skill]) -> Path:
    """Put a copy of `skills` into the run folder, instead of any that is there; returns its folder."""
    folder = Path(run_dir) / FOLDER
    names = {file_name(skill): skill for skill in skills}
    for name, skill in names.items():
        write_atomic(folder / name, format_skill(skill))
    for file in folder.glob("*.md"):
        if file.name not in names:
            file.unlink()
    return folder


def kept(
    run_dir: Path | str,
    pins: Sequence[Pin],
    *,
    env: str | None = None,
    task_types: Collection[str] | None = None,
) -> SkillStore | None:
    """The copy in the run folder, checked against `pins`; None if there is none, raises `SkillError` if it differs."""
    folder = Path(run_dir) / FOLDER
    if not folder.is_dir() or not any(folder.glob("*.md")):
        return None
    try:
        store = DirectoryStore(folder, env=env, task_types=task_types)
        require_pins(store.all(), pins, str(folder), exactly=True)
    except SkillError as error:
        raise SkillError(f"the run's own copy is damaged (delete {folder} to read the store again): {error}") from error
    return store


def file_name(skill: Skill) -> str:
    """A file name that no other id has: ids never hold two underscores in a row."""
    return f"{skill.id.replace('/', '__')}.md"


def _name(key: tuple[str, int]) -> str:
    return f"{key[0]} version {key[1]}"
