"""The skill sets that come with the package, and one way to open them or a folder of one's own."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from sdar_verl.skills.errors import SkillError
from sdar_verl.skills.store import DirectoryStore

_TEXTS = Path(__file__).parent / "texts"


def shipped_sets() -> tuple[str, ...]:
    """Names of the shipped sets, for example ``alfworld`` and ``alfworld_tiny``."""
    return tuple(sorted(p.name for p in _TEXTS.iterdir() if p.is_dir() and not p.name.startswith(("_", "."))))


def shipped_path(name: str) -> Path:
    """The folder of the shipped set `name`; raises `SkillError` naming the known sets."""
    if name not in shipped_sets():
        raise SkillError(f"no shipped skill set {name!r}; known: {', '.join(shipped_sets())}")
    return _TEXTS / name


def open_store(
    source: str | Path, *, env: str | None = None, task_types: Collection[str] | None = None
) -> DirectoryStore:
    """Open a shipped set by name, or a folder by path.

    Args:
        source: a shipped set's name (``alfworld``), or a path (a `Path`, or text that holds a ``/``).
        env, task_types: what the skills must be for; see `MemoryStore`.
    """
    if isinstance(source, Path) or "/" in source:
        return DirectoryStore(Path(source).expanduser(), env=env, task_types=task_types)
    if source not in shipped_sets():
        raise SkillError(
            f"no shipped skill set {source!r}; known: {', '.join(shipped_sets())}. "
            f"For a folder of your own write its path with a slash, for example ./{source}"
        )
    return DirectoryStore(shipped_path(source), env=env, task_types=task_types)
