"""The skills of a run: chosen when it starts, the same ones whenever it goes on, whatever becomes of their store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdar_envs import registry

from sdar_verl.manifest import read_manifest
from sdar_verl.redaction import redact
from sdar_verl.settings import Settings
from sdar_verl.skills import SkillError, SkillStore, open_store
from sdar_verl.skills.errors import SkillsUnreachable
from sdar_verl.skills.pins import Pin, kept, manifest_pins


def first_skills(settings: Settings) -> SkillStore:
    """What the configured store holds today."""
    return _open(settings, None)


def pinned_skills(settings: Settings) -> SkillStore:
    """The skills that the run's manifest names: its own copy, or those versions from the configured store.

    The copy counts for the store that it was made from. With another one configured, that store must hold the same.

    Raises:
        ManifestError: there is no manifest, so nothing was pinned; on several nodes all must see the run folder.
        SkillError: a pinned version is gone, or has another content.
    """
    manifest = read_manifest(settings.run_dir)
    pins = manifest_pins(manifest)
    try:
        if _configured(manifest) == redact(settings.skills.store):
            copy = kept(settings.run_dir, pins, env=settings.env.name, task_types=_task_types(settings))
            if copy is not None:
                return copy
        return _open(settings, pins)
    except SkillsUnreachable:
        raise
    except SkillError as error:
        raise SkillError(
            f"the run in {Path(settings.run_dir)} cannot go on with the skills that it began with: {error}"
        ) from error


def _configured(manifest: dict) -> str | None:
    try:
        return manifest["config"]["sdar"]["skills"]["store"]
    except (KeyError, TypeError):
        return None


def _open(settings: Settings, pins: Sequence[Pin] | None) -> SkillStore:
    return open_store(settings.skills.store, env=settings.env.name, task_types=_task_types(settings), pins=pins)


def _task_types(settings: Settings) -> tuple[str, ...]:
    return registry.get(settings.env.name).task_types
