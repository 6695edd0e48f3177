"""The skill sets that come with the package, and one way to open them, a folder of one's own or a shared table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from sdar_verl.skills.aws import SCHEME, Address
from sdar_verl.skills.errors import SkillError
from sdar_verl.skills.pins import Pin, require_pins
from sdar_verl.skills.store import DirectoryStore, MemoryStore

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
    source: str | Path,
    *,
    env: str | None = None,
    task_types: Collection[str] | None = None,
    pins: Sequence[Pin] | None = None,
) -> MemoryStore:
    """Open a shipped set by name, a folder by path, or a set in DynamoDB by its address.

    Args:
        source: a shipped set's name (``alfworld``), a path (a `Path`, or text that holds a ``/``), or an address
            (``dynamodb://TABLE/SET``, see `sdar_verl.skills.aws.FORM`).
        env, task_types: what the skills must be for; see `MemoryStore`.
        pins: the store must give exactly these versions. A folder holds one version of each skill, so it must hold
            these; DynamoDB holds all.
    """
    if isinstance(source, str) and source.startswith(SCHEME):
        from sdar_verl.skills.dynamodb import DynamoStore

        return DynamoStore(Address.parse(source), env=env, task_types=task_types, pins=pins)
    store = DirectoryStore(_folder(source), env=env, task_types=task_types)
    if pins is not None:
        require_pins(store.all(), pins, str(source), exactly=True)
    return store


def _folder(source: str | Path) -> Path:
    if isinstance(source, Path) or "/" in source:
        return Path(source).expanduser()
    if source not in shipped_sets():
        raise SkillError(
            f"no shipped skill set {source!r}; known: {', '.join(shipped_sets())}. "
            f"For a folder of your own write its path with a slash, for example ./{source}"
        )
    return shipped_path(source)
