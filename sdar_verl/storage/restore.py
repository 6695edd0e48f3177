"""What a start goes on from: the newest sound checkpoint, on this machine or in S3; never nothing without a word."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from sdar_verl import host
from sdar_verl.checkpoints import complete_steps
from sdar_verl.errors import ConfigError
from sdar_verl.manifest import FILE as RUN_MANIFEST
from sdar_verl.storage.errors import DamageError, StorageError
from sdar_verl.storage.identity import FILE as IDENTITY
from sdar_verl.storage.identity import RunIdentity
from sdar_verl.storage.local import damage, folder_of, is_of_another, put_away, set_aside, write_local
from sdar_verl.storage.manifest import Manifest, StoredFile
from sdar_verl.storage.remote import CHECKPOINT, RECORDS, Entry, RemoteCheckpoints
from sdar_verl.storage.settings import CheckpointSettings
from sdar_verl.storage.transfer import Transfer

_STAGING = ".restore-"
Say = Callable[[str], None]


def _print(text: str) -> None:
    print(f"[sdar] {text}", flush=True)


def restore(
    run_dir: Path, root: Path, settings: CheckpointSettings, *, resume_mode: str, say: Say = _print
) -> RunIdentity:
    """Bring the newest sound checkpoint of the run to `root`, where it is not.

    Broken checkpoints on the machine are renamed, those in S3 marked; each is said, and the next older one is taken.

    Args:
        run_dir, root: the run's folder, and the one of its checkpoints; both may be missing or empty.
        resume_mode: verl's ``trainer.resume_mode``; only with ``auto`` something is looked for.

    Returns:
        Which run this is, and which start of it; to be written once nothing else is in the way of the start.

    Raises:
        ConfigError: there are checkpoints and none of them can be used, or they are another run's.
        StorageError: S3 cannot be reached, or the disk is too small; nothing was lost.
    """
    known = RunIdentity.read(run_dir)
    remote = None if settings.place is None else RemoteCheckpoints(settings.place, settings.parallel)
    everything = [] if remote is None else remote.entries(damaged=True)
    if resume_mode != "auto":
        if everything:
            raise ConfigError(
                f"{settings.s3} holds {len(everything)} checkpoints of an earlier run, and trainer.resume_mode="
                f"{resume_mode} would mix another one in; choose another sdar.checkpoints.s3, or remove them: "
                f"sdar checkpoints prune '{settings.s3}' --all"
            )
        identity = RunIdentity.new() if resume_mode == "disable" or known is None else known
        return identity.after(0)
    found = _newest(run_dir, root, settings, remote, everything, known, say)
    if found is None and everything:
        raise ConfigError(
            f"{settings.s3} holds checkpoints of this run, and none of the {len(everything)} can be used. Look at them "
            f"(sdar checkpoints verify '{settings.s3}' --deep), or begin anew with another sdar.run_dir and "
            "sdar.checkpoints.s3"
        )
    identity = RunIdentity.read(run_dir) or RunIdentity.new()
    return identity.after(0 if remote is None else max(remote.last_start(), *(entry.start for entry in everything), 0))


def _newest(
    run_dir: Path,
    root: Path,
    settings: CheckpointSettings,
    remote: RemoteCheckpoints | None,
    everything: list[Entry],
    known: RunIdentity | None,
    say: Say,
) -> int | None:
    local = set(complete_steps(root))
    if known is None and everything and (local or (run_dir / RUN_MANIFEST).exists()):
        raise ConfigError(
            f"{run_dir} holds a run, and {settings.s3} the checkpoints of another one; choose another "
            "sdar.run_dir or another sdar.checkpoints.s3"
        )
    if known is not None and (others := {n for n in local if is_of_another(folder_of(root, n), known.run)}):
        away = put_away(root, sorted(others))
        say(f"the checkpoints of steps {', '.join(map(str, sorted(others)))} are another run's; moved to {away}")
        local -= others
    sound: dict[int, list[Entry]] = {}
    for entry in everything:
        if not entry.damaged:
            sound.setdefault(entry.step, []).insert(0, entry)  # of one step the later start's first
    for step in sorted(local | set(sound), reverse=True):
        if step in local:
            wrong = damage(folder_of(root, step), read=settings.verify)
            if not wrong:
                if known is not None:
                    _require_same(remote, everything, known)
                return step
            aside = set_aside(root, step)
            say(f"the checkpoint of step {step} on this machine is damaged: {wrong[0]}; moved to {aside}")
        for entry in sound.get(step, ()):
            try:
                manifest = remote.read(entry)
                _require_run(manifest, known, settings)
                fetch(remote, entry, manifest, run_dir, root, settings, say)
                return step
            except DamageError as error:
                if not _is_damaged(remote, entry):
                    raise StorageError(
                        f"the checkpoint of step {step} is whole in S3, but not as it arrives here: {error}. Look at "
                        "this machine's disk and memory; nothing was marked as damaged"
                    ) from error
                say(f"the checkpoint of step {step} in S3 is damaged: {error}; looking for an older one")
                _mark(remote, entry, str(error), say)
    return None


def fetch(
    remote: RemoteCheckpoints,
    entry: Entry,
    manifest: Manifest,
    run_dir: Path,
    root: Path,
    settings: CheckpointSettings,
    say: Say = _print,
) -> Path:
    """Bring one checkpoint and the run's files from S3; all is compared before anything takes its place.

    Returns:
        The checkpoint's folder.

    Raises:
        DamageError: it is not what was saved; nothing of the run's folder has changed.
        StorageError: S3 cannot be reached, or the disk is full; a later try uses what has arrived.
    """
    # beside what each replaces: checkpoints may lie on another file system than the run's own files
    staging, records = root / f"{_STAGING}{entry.name}", run_dir / f"{_STAGING}{entry.name}"
    for other in {*root.glob(f"{_STAGING}*"), *run_dir.glob(f"{_STAGING}*")} - {staging, records}:
        shutil.rmtree(other, ignore_errors=True)
    there = _keep_named(staging / CHECKPOINT, manifest.checkpoint) + _keep_named(records / RECORDS, manifest.records)
    needed = max(0, manifest.size - there)
    if (free := host.free_disk(root)) < needed:
        raise StorageError(
            f"the checkpoint of step {manifest.step} needs {needed / host.GIB:.1f} GiB in {root}, and there are "
            f"{free / host.GIB:.1f} GiB; make room, or set sdar.run_dir to a larger disk"
        )
    say(f"fetching the checkpoint of step {manifest.step} from S3, {needed / host.GIB:.2f} GiB")
    transfer = Transfer(remote, parallel=settings.parallel, bandwidth=settings.bandwidth)
    try:
        staging.mkdir(parents=True, exist_ok=True)
        transfer.download(entry.name, CHECKPOINT, manifest.checkpoint, staging / CHECKPOINT)
        transfer.download(entry.name, RECORDS, manifest.records, records / RECORDS)
        write_local(staging / CHECKPOINT, manifest)
        # whose run it is comes first: a kill between two files must not make the folder look like another run's
        for file in sorted(manifest.records, key=lambda file: file.path != IDENTITY):
            target = run_dir / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(records / RECORDS / file.path, target)
        if folder_of(root, manifest.step).exists():
            set_aside(root, manifest.step)
        os.replace(staging / CHECKPOINT, folder_of(root, manifest.step))
    except OSError as error:
        raise StorageError(f"the checkpoint of step {manifest.step} cannot be written to {root}: {error}") from error
    for folder in (staging, records):
        shutil.rmtree(folder, ignore_errors=True)
    return folder_of(root, manifest.step)


def _keep_named(folder: Path, files: Iterable[StoredFile]) -> int:
    """Remove everything but `files` (temporary names of a killed download) from `folder`; bytes of what is left."""
    named, left = {folder / file.path for file in files}, 0
    for path in folder.rglob("*"):
        if path.is_dir():
            continue
        if path in named:
            left += path.stat().st_size
        else:
            path.unlink()
    return left


def _require_same(remote: RemoteCheckpoints | None, everything: list[Entry], known: RunIdentity) -> None:
    """The place must be this run's even where nothing is fetched from it: its next upload goes there."""
    for entry in reversed(everything):
        try:
            manifest = remote.read(entry)
        except DamageError:
            continue
        _require_run(manifest, known, None, str(remote.place))
        return


def _require_run(
    manifest: Manifest, known: RunIdentity | None, settings: CheckpointSettings | None, place: str = ""
) -> None:
    if known is not None and manifest.run != known.run:
        raise ConfigError(
            f"{place or settings.s3} holds the checkpoints of another run ({manifest.run[:8]}, this one is "
            f"{known.run[:8]}); choose another sdar.checkpoints.s3"
        )


def _is_damaged(remote: RemoteCheckpoints, entry: Entry) -> bool:
    """Whether what S3 itself holds is broken; all of it is read, past this machine's disk."""
    try:
        manifest = remote.read(entry)
    except DamageError:
        return True
    return bool(remote.missing(entry.name, manifest) or remote.differing(entry.name, manifest))


def _mark(remote: RemoteCheckpoints, entry: Entry, why: str, say: Say) -> None:
    try:
        remote.mark_damaged(entry, why)
    except StorageError as error:
        say(f"it could not be marked as damaged, so the next start will try it again: {error}")
