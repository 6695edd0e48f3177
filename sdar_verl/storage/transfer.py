"""Moves files between this machine and S3: in parts, several at once, with checksums and a limit on the bandwidth."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdar_verl.storage.errors import DamageError, StorageError, StorageUnreachable
from sdar_verl.storage.manifest import StoredFile, problems
from sdar_verl.storage.remote import CHECKPOINT, RECORDS, RemoteCheckpoints, is_gone

PART = 32 << 20  # bytes; s3transfer takes larger ones where a file would have more than 10,000
_POLL_SECONDS = 0.05
Progress = Callable[[int], None]


class Cancelled(Exception):
    """The transfer was told to stop."""


class Snapshot:
    """A file of the run's folder as it is now: whole in memory, or, of one that only grows, its bytes up to now."""

    def __init__(self, path: Path, name: str):
        self._path, self._content = path, None
        if path.suffix == ".jsonl":
            size = path.stat().st_size
        else:
            self._content = path.read_bytes()
            size = len(self._content)
        self.name, self.size = name, size

    def open(self) -> io.BufferedIOBase:
        """The bytes of the snapshot."""
        if self._content is not None:
            return io.BytesIO(self._content)
        return io.BufferedReader(_Head(self._path, self.size))

    def describe(self) -> StoredFile:
        """Its entry in a manifest; raises OSError if the file is shorter now."""
        digest, size = hashlib.sha256(), 0
        with self.open() as file:
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
        if size != self.size:
            raise OSError(f"{self._path} has become shorter than the {self.size} bytes it had")
        return StoredFile(self.name, size, digest.hexdigest())


class _Head(io.RawIOBase):
    """The first `size` bytes of a file that may grow meanwhile."""

    def __init__(self, path: Path, size: int):
        self._file, self._size = path.open("rb", buffering=0), size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            offset, whence = offset + self._size, os.SEEK_SET
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        room = max(0, min(len(buffer), self._size - self._file.tell()))
        return self._file.readinto(memoryview(buffer)[:room]) if room else 0

    def close(self) -> None:
        self._file.close()
        super().close()


class Transfer:
    """Uploads and downloads of one place.

    Args:
        parallel: parts in flight at once.
        bandwidth: most bytes a second, both ways; None for no limit.
        stop: once set, a transfer ends with `Cancelled`.
    """

    def __init__(
        self,
        remote: RemoteCheckpoints,
        *,
        parallel: int,
        bandwidth: float | None,
        stop: threading.Event | None = None,
    ):
        self.remote, self._parallel, self._bandwidth = remote, parallel, bandwidth
        self._stop = stop or threading.Event()

    def upload(
        self, name: str, folder: Path, files: Iterable[StoredFile], done: set[str], progress: Progress = lambda n: None
    ) -> None:
        """Send a checkpoint's files; those in `done` were sent by an earlier try, and it grows with each that arrives.

        Raises:
            StorageError: S3 did not take one, or it cannot be read any more.
            Cancelled: told to stop.
        """
        sources = {file.path: str(folder / file.path) for file in files if file.path not in done}
        keys = {file.path: self.remote.key(name, CHECKPOINT, file) for file in files}
        self._send(sources, keys, done, progress)

    def upload_records(self, name: str, snapshots: Iterable[Snapshot]) -> tuple[StoredFile, ...]:
        """Send the run's own files; returns their entries in the manifest."""
        sources = {snapshot.name: snapshot for snapshot in snapshots}
        try:
            files = {snapshot.name: snapshot.describe() for snapshot in sources.values()}
        except OSError as error:
            raise StorageError(f"a file of the run cannot be read: {error}") from error
        with _closing({name: snapshot.open() for name, snapshot in sources.items()}) as streams:
            keys = {path: self.remote.key(name, RECORDS, file) for path, file in files.items()}
            self._send(streams, keys, set(), lambda count: None)
        return tuple(files.values())

    def download(
        self, name: str, part: str, files: Iterable[StoredFile], folder: Path, progress: Progress = lambda n: None
    ) -> None:
        """Fetch files into `folder` and compare their hashes; what an interrupted try left there is used.

        Raises:
            DamageError: S3 lacks one, or it is not what was saved (it was fetched twice).
            StorageError: S3 cannot be reached, or the disk does not take it.
        """
        wanted = [file for file in files if problems(folder, [file])]
        for _ in range(2):
            self._fetch(name, part, wanted, folder, progress)
            wanted = [file for file in wanted if problems(folder, [file])]
            if not wanted:
                return
        raise DamageError(f"{self.remote.place}: {name}: {problems(folder, wanted)[0]}")

    def _send(self, sources: Mapping[str, Any], keys: Mapping[str, str], done: set[str], progress: Progress) -> None:
        if not sources:
            return
        with self._manager() as manager:
            watch = _watcher(progress)
            futures = {
                path: manager.upload(
                    source, self.remote.place.bucket, keys[path], {"ChecksumAlgorithm": "SHA256"}, [watch]
                )
                for path, source in sources.items()
            }
            self._finish(futures, done)

    def _fetch(self, name: str, part: str, files: list[StoredFile], folder: Path, progress: Progress) -> None:
        for file in files:
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        with self._manager() as manager:
            watch = _watcher(progress)
            futures = {
                file.path: manager.download(
                    self.remote.place.bucket, self.remote.key(name, part, file), str(folder / file.path), {}, [watch]
                )
                for file in files
            }
            self._finish(futures, set())

    def _manager(self) -> Any:
        """As a context it waits for its transfers, or, after an error, gives all of them up, begun parts included."""
        from s3transfer.manager import TransferConfig, TransferManager

        limit = None if self._bandwidth is None else max(1, int(self._bandwidth))
        config = TransferConfig(
            multipart_threshold=PART,
            multipart_chunksize=PART,
            max_request_concurrency=self._parallel,
            max_bandwidth=limit,
        )
        return TransferManager(self.remote.client, config)

    def _finish(self, futures: Mapping[str, Any], done: set[str]) -> None:
        from botocore.exceptions import BotoCoreError, ClientError
        from s3transfer.exceptions import RetriesExceededError, S3ValidationError

        left = dict(futures)
        while left:
            if self._stop.is_set():
                raise Cancelled
            for path in [path for path, future in left.items() if future.done()]:
                try:
                    with self.remote.place.reporting():
                        left.pop(path).result()
                except StorageError as error:
                    if isinstance(error.__cause__, ClientError) and is_gone(error.__cause__):
                        raise DamageError(f"{self.remote.place}: {path} is missing") from error
                    raise
                except RetriesExceededError as error:
                    raise StorageUnreachable(f"{self.remote.place}: {path}: {error}") from error
                except (S3ValidationError, BotoCoreError) as error:
                    raise StorageError(f"{self.remote.place}: {path}: {error}") from error
                except OSError as error:
                    raise StorageError(f"{path}: {error}; is the disk full?") from error
                done.add(path)
            if left:
                time.sleep(_POLL_SECONDS)


@contextmanager
def _closing(streams: dict[str, Any]) -> Iterator[dict[str, Any]]:
    try:
        yield streams
    finally:
        for stream in streams.values():
            stream.close()


def _watcher(progress: Progress) -> Any:
    from s3transfer.subscribers import BaseSubscriber

    class Watch(BaseSubscriber):
        def on_progress(self, future: Any, bytes_transferred: int, **kwargs: Any) -> None:
            progress(bytes_transferred)

    return Watch()
