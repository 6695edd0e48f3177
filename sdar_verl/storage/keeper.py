"""The background thread of a run that makes its checkpoints valid: hashes, manifest, upload, retention."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from sdar_verl.checkpoints import prune
from sdar_verl.manifest import installed_versions
from sdar_verl.storage.errors import DamageError, StorageError
from sdar_verl.storage.identity import RunIdentity
from sdar_verl.storage.local import folder_of, read_local, write_local
from sdar_verl.storage.manifest import Manifest, describe_folder
from sdar_verl.storage.records import run_files
from sdar_verl.storage.remote import RemoteCheckpoints, new_name
from sdar_verl.storage.settings import MIB, CheckpointSettings
from sdar_verl.storage.transfer import Cancelled, Snapshot, Transfer

_LONGEST_WAIT = 60.0  # seconds between two tries


class CheckpointKeeper:
    """Takes up what the trainer saves. Nothing here stops or slows a step: errors are said, counted and tried again.

    At most one checkpoint is on its way and one waits; a newer one takes the place of the one that waits. Those two
    and the newest `keep_local` ones stay on the machine.

    Args:
        run_dir, root: the run's folder, and the one of its checkpoints.
        keep_local: checkpoints to keep on the machine; None or 0 removes none.
        first_wait: seconds before the second try of an upload; doubled for each further one.
    """

    def __init__(
        self,
        run_dir: Path,
        root: Path,
        settings: CheckpointSettings,
        identity: RunIdentity,
        keep_local: int | None,
        *,
        first_wait: float = 1.0,
        say: Callable[[str], None] = lambda text: print(f"[sdar] {text}", flush=True),
    ):
        self._run_dir, self._root, self._settings, self._identity = run_dir, root, settings, identity
        self._keep_local, self._first_wait, self._say = keep_local, first_wait, say
        self._changed = threading.Condition()
        self._stop = threading.Event()  # give up what is on its way
        self._closing = False  # finish what is on its way
        self._waiting: int | None = None
        self._current: int | None = None
        self._last: int | None = None  # what was saved last
        self._old: int | None = None  # what an earlier start saved, and perhaps uploaded
        self._records: dict[int, list[Snapshot]] = {}
        self._remote: RemoteCheckpoints | None = None
        self._sent = 0  # bytes of the checkpoint on its way
        self._numbers = {"uploaded_step": 0.0, "upload_failures": 0.0, "upload_superseded": 0.0}
        self._thread = threading.Thread(target=self._work, name="checkpoint-keeper", daemon=True)
        self._thread.start()

    # --- the trainer's side -------------------------------------------------------------------------------------

    def saved(self, step: int) -> None:
        """The checkpoint of `step` is complete on the machine; its upload begins."""
        with self._changed:
            if self._waiting is not None:
                self._numbers["upload_superseded"] += 1
            self._waiting = self._last = step
            self._changed.notify_all()

    def resumed(self, step: int) -> None:
        """The run goes on from the checkpoint of `step`; it is uploaded if an earlier start did not come to that."""
        with self._changed:
            self._old = step
        self.saved(step)
        self.recorded(step)

    def recorded(self, step: int) -> None:
        """The run's files hold all of `step` and nothing later; needed before its checkpoint can be sealed."""
        with self._changed:
            if self._settings.s3 is None or step not in (self._waiting, self._current) or step in self._records:
                return
            try:
                self._records = {
                    **{known: files for known, files in self._records.items() if known == self._current},
                    step: run_files(self._run_dir, self._root),
                }
            except OSError as error:  # the keeper takes them itself when it closes
                self._say(f"the run's files cannot be read for the checkpoint of step {step}: {error}")
            self._changed.notify_all()

    def metrics(self) -> dict[str, float]:
        """``checkpoint/...``: the newest step in S3, what is on its way (count, MiB sent), failures, last duration."""
        if self._settings.s3 is None:
            return {}
        with self._changed:
            pending = (self._waiting is not None) + (self._current is not None)
            numbers = {**self._numbers, "upload_pending": float(pending), "upload_sent_mib": self._sent / MIB}
        return {f"checkpoint/{name}": value for name, value in numbers.items()}

    def close(self, timeout: float | None = None) -> bool:
        """Finish what waits and end the thread.

        Args:
            timeout: seconds after which the upload is given up; None waits for all its tries.

        Returns:
            Whether the checkpoint that was saved last is in S3, if it should be.
        """
        with self._changed:
            self._closing = True
            step, busy = self._last, self._current is not None or self._waiting is not None
            self._changed.notify_all()
        if busy and self._settings.s3 is not None:
            self._say(f"waiting for the upload of the checkpoint of step {step}")
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._stop.set()
            with self._changed:
                self._changed.notify_all()
            self._thread.join(10)
        with self._changed:
            arrived = step is None or self._settings.s3 is None or self._numbers["uploaded_step"] >= step
        if not arrived:
            self._say(f"the checkpoint of step {step} is on this machine alone: its upload did not come to its end")
        return arrived

    # --- the thread's side --------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._closing)
                if self._waiting is None or self._stop.is_set():
                    return
                step, self._waiting, self._sent = self._waiting, None, 0
                self._current = step
            try:
                self._keep(step)
            except Cancelled:
                return
            except Exception:  # the edge of a thread: it must live on for the next checkpoint
                self._failed(f"the checkpoint of step {step} could not be kept:\n{traceback.format_exc()}")
            finally:
                with self._changed:
                    self._current = None
                    self._records.pop(step, None)
                    self._changed.notify_all()

    def _keep(self, step: int) -> None:
        folder = folder_of(self._root, step)
        try:
            before = read_local(folder) if step == self._old else None  # hashes of what was saved, not of what is left
            files = before.checkpoint if before else describe_folder(folder)
        except (OSError, DamageError) as error:
            self._failed(f"the checkpoint of step {step} cannot be read: {error}")
            return
        manifest = Manifest(
            run=self._identity.run,
            step=step,
            start=self._identity.start,
            saved=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            checkpoint=files,
            records=(),
            packages=installed_versions(),
        )
        try:
            write_local(folder, manifest)
        except OSError as error:  # a full disk; the checkpoint itself is there
            self._failed(f"{folder}: its manifest cannot be written: {error}")
        if self._settings.place is not None:
            self._tidy(step, self._upload(manifest, folder))

    def _upload(self, manifest: Manifest, folder: Path) -> str | None:
        """The name under which it is in S3, or None after all tries failed or a newer one waits."""
        name, done, began = new_name(manifest.step, manifest.start), set[str](), time.monotonic()
        for tried in range(self._settings.attempts):
            if tried and not self._wait_before(tried):
                break
            try:
                remote = self._connected()
                if manifest.step == self._old and (there := self._is_there(manifest.step)):
                    return there
                transfer = Transfer(
                    remote, parallel=self._settings.parallel, bandwidth=self._settings.bandwidth, stop=self._stop
                )
                transfer.upload(name, folder, manifest.checkpoint, done, self._count)
                records = transfer.upload_records(name, self._wait_for_records(manifest.step))
                remote.seal(name, replace(manifest, records=records))
            except StorageError as error:
                self._failed(f"upload of the checkpoint of step {manifest.step}, try {tried + 1}: {error}")
                continue
            seconds = time.monotonic() - began
            with self._changed:
                self._numbers["uploaded_step"] = float(manifest.step)
                self._numbers["upload_seconds"] = seconds
            self._say(f"checkpoint of step {manifest.step} is in S3: {manifest.size / MIB:.1f} MiB in {seconds:.1f} s")
            return name
        self._say(f"the checkpoint of step {manifest.step} is on this machine alone")
        return None

    def _is_there(self, step: int) -> str | None:
        """The name under which an earlier start uploaded `step`."""
        there = [entry.name for entry in self._connected().entries() if entry.step == step]
        if not there:
            return None
        with self._changed:
            self._numbers["uploaded_step"] = float(step)
        return there[-1]

    def _connected(self) -> RemoteCheckpoints:
        if self._remote is None:
            remote = RemoteCheckpoints(self._settings.place, self._settings.parallel)
            try:
                if swept := remote.sweep(self._identity.start):
                    self._say(f"removed {swept} unfinished uploads of earlier starts")
            except StorageError as error:  # they cost, and harm nothing
                self._failed(f"what earlier starts left unfinished in S3 cannot be removed: {error}")
            self._remote = remote
        return self._remote

    def _wait_before(self, tried: int) -> bool:
        """Wait before another try; False if there should be none, because a newer checkpoint waits."""
        with self._changed:
            seconds = min(_LONGEST_WAIT, self._first_wait * 2 ** (tried - 1))
            self._changed.wait_for(lambda: self._stop.is_set() or self._waiting is not None, seconds)
            if self._stop.is_set():
                raise Cancelled
            return self._waiting is None

    def _wait_for_records(self, step: int) -> list[Snapshot]:
        with self._changed:
            self._changed.wait_for(
                lambda: step in self._records or self._waiting is not None or self._closing or self._stop.is_set()
            )
            if step in self._records:
                return self._records[step]
            if self._stop.is_set():
                raise Cancelled
            if self._waiting is not None:
                raise StorageError(f"step {step} was not recorded before the next checkpoint")
        try:
            return run_files(self._run_dir, self._root)  # the run ends before the step was recorded
        except OSError as error:
            raise StorageError(f"the run's files cannot be read: {error}") from error

    def _tidy(self, step: int, uploaded: str | None) -> None:
        """Retention on both sides; `step`, just kept, and what waits for its upload stay.

        After a failed upload nothing is removed: what lies here may be all there is.
        """
        if uploaded is None:
            return
        try:
            self._connected().prune(self._settings.keep, protect=(uploaded,))
            if self._keep_local:
                with self._changed:
                    waiting = () if self._waiting is None else (self._waiting,)
                prune(self._root, self._keep_local, protect=(step, *waiting))
        except (StorageError, OSError) as error:
            self._failed(f"old checkpoints cannot be removed: {error}")

    def _count(self, sent: int) -> None:
        with self._changed:
            self._sent += sent

    def _failed(self, text: str) -> None:
        with self._changed:
            self._numbers["upload_failures"] += 1
        self._say(text)
