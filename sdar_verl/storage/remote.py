"""The checkpoints of one run in S3.

Keys under the run's prefix:

* ``checkpoints/<name>/checkpoint/...`` and ``.../records/...``: files, under a name that is used once and never again;
* ``manifests/<name>.json``: written after all of them; a checkpoint without it does not exist;
* ``damaged/<name>.json``: why a checkpoint was found to be broken; such a one is passed over.

Nothing is ever overwritten, so an upload cannot harm a checkpoint that is there, whenever it is interrupted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sdar_verl.storage.errors import DamageError, StorageError
from sdar_verl.storage.manifest import Manifest, StoredFile
from sdar_verl.storage.place import Place

CHECKPOINT, RECORDS = "checkpoint", "records"
_NAME = re.compile(r"step-(\d{10})\.start-(\d{6})\.[0-9a-f]{8}")
_GONE = ("404", "NoSuchKey")
_PER_DELETE = 1000  # S3's limit


@dataclass(frozen=True, order=True)
class Entry:
    """A checkpoint in S3, ordered as it is newer: by step, then by the run's start, never by a clock.

    Attributes:
        name: what its keys begin with.
        damaged: it was found to be broken.
    """

    step: int
    start: int
    name: str
    damaged: bool = False


def new_name(step: int, start: int) -> str:
    """A name that no other upload has, not even of the same step by another machine."""
    return f"step-{step:010d}.start-{start:06d}.{uuid4().hex[:8]}"


class RemoteCheckpoints:
    """Lists, reads, seals and deletes; files themselves are moved by `sdar_verl.storage.transfer`."""

    def __init__(self, place: Place, connections: int = 10):
        self.place = place
        self.client = place.connect(connections)

    # --- reading ------------------------------------------------------------------------------------------------

    def entries(self, *, damaged: bool = False) -> list[Entry]:
        """Checkpoints that have a manifest, oldest first; with `damaged` also those that were found to be broken."""
        marked = {key.rpartition("/")[2].removesuffix(".json") for key, _ in self._objects("damaged")}
        found = []
        for key, _ in self._objects("manifests"):
            name = key.rpartition("/")[2].removesuffix(".json")
            match = _NAME.fullmatch(name)
            if match and (damaged or name not in marked):
                found.append(Entry(int(match[1]), int(match[2]), name, name in marked))
        return sorted(found)

    def read(self, entry: Entry) -> Manifest:
        """The manifest of `entry`; raises `DamageError` if it is not whole or speaks of another checkpoint."""
        key = self.place.key("manifests", f"{entry.name}.json")
        with self.place.reporting():
            try:
                content = self.client.get_object(Bucket=self.place.bucket, Key=key)["Body"].read()
            except self.client.exceptions.NoSuchKey:
                raise DamageError(f"s3://{self.place.bucket}/{key} is gone") from None
        manifest = Manifest.from_json(content, f"s3://{self.place.bucket}/{key}")
        if (manifest.step, manifest.start) != (entry.step, entry.start):
            raise DamageError(f"s3://{self.place.bucket}/{key} is the manifest of another checkpoint")
        return manifest

    def missing(self, name: str, manifest: Manifest) -> list[str]:
        """What S3 lacks of the files of `manifest`, by name and size; a line for each."""
        prefix = self.place.key("checkpoints", name) + "/"
        there = {key.removeprefix(prefix): size for key, size in self._objects("checkpoints", name)}
        found = []
        for part, files in ((CHECKPOINT, manifest.checkpoint), (RECORDS, manifest.records)):
            for file in files:
                size = there.get(f"{part}/{file.path}")
                if size is None:
                    found.append(f"{part}/{file.path} is missing")
                elif size != file.size:
                    found.append(f"{part}/{file.path} has {size} bytes instead of {file.size}")
        return found

    def differing(self, name: str, manifest: Manifest) -> list[str]:
        """What S3 holds with another content than `manifest` says; reads everything, keeps nothing."""
        found = []
        for part, files in ((CHECKPOINT, manifest.checkpoint), (RECORDS, manifest.records)):
            for file in files:
                digest = hashlib.sha256()
                with self.place.reporting():
                    body = self.client.get_object(Bucket=self.place.bucket, Key=self.key(name, part, file))["Body"]
                    for block in body.iter_chunks(1 << 20):
                        digest.update(block)
                if digest.hexdigest() != file.sha256:
                    found.append(f"{part}/{file.path} has other content than was saved")
        return found

    def key(self, name: str, part: str, file: StoredFile) -> str:
        """The object of one file."""
        return self.place.key("checkpoints", name, part, file.path)

    # --- writing ------------------------------------------------------------------------------------------------

    def seal(self, name: str, manifest: Manifest) -> Entry:
        """Make an upload a checkpoint: look that all files arrived, then write the manifest.

        Raises:
            StorageError: something is not there, or S3 does not take the manifest; then nothing was made valid.
        """
        if lacking := self.missing(name, manifest):
            raise StorageError(f"{self.place}: after the upload {lacking[0]}; {len(lacking)} such files")
        self._put(self.place.key("manifests", f"{name}.json"), manifest.to_json())
        return Entry(manifest.step, manifest.start, name)

    def mark_damaged(self, entry: Entry, why: str) -> None:
        """Let all later starts pass `entry` over; nothing of it is deleted."""
        self._put(self.place.key("damaged", f"{entry.name}.json"), why)

    def unmark(self, entry: Entry) -> None:
        """Take `mark_damaged` back."""
        self._delete([self.place.key("damaged", f"{entry.name}.json")])

    def delete(self, entry: Entry) -> None:
        """Remove a checkpoint, the manifest first: half a removal leaves no half checkpoint."""
        self._delete([self.place.key("manifests", f"{entry.name}.json")])
        self._delete([key for key, _ in self._objects("checkpoints", entry.name)])
        self.unmark(entry)

    def prune(self, keep: int, protect: Collection[str] = ()) -> list[Entry]:
        """Remove all but the newest `keep` sound checkpoints and those named in `protect`.

        A broken one goes only once `keep` sound ones are newer than it.

        Returns:
            What was removed.
        """
        if keep < 1:
            raise StorageError(f"the newest checkpoint is always kept, so keep={keep} cannot be; use 1 or more")
        everything = self.entries(damaged=True)
        sound = [entry for entry in everything if not entry.damaged]
        if len(sound) < keep:
            return []
        oldest = sound[-keep]
        gone = [entry for entry in everything if entry < oldest and entry.name not in protect]
        for entry in gone:
            self.delete(entry)
        return gone

    def sweep(self, before_start: int) -> int:
        """Remove what uploads of starts before `before_start` left without a manifest; returns how many uploads.

        Only the run's only writer may call it, with its own start: an upload of an earlier one never ends.
        """
        sealed = {entry.name for entry in self.entries(damaged=True)}
        names = self._uploads()
        left = {name for name in names if name not in sealed and self._is_before(name, before_start)}
        for name in left:
            self._delete(names[name])
        return len(left | self._abort_parts(before_start))

    def last_start(self) -> int:
        """The run's latest start that left files here, of a whole checkpoint or not; 0 for none."""
        return max((int(match[2]) for match in map(_NAME.fullmatch, self._uploads()) if match), default=0)

    def _uploads(self) -> dict[str, list[str]]:
        """Keys of the files by the checkpoint's name, sealed or not."""
        root, names = self.place.key("checkpoints") + "/", {}
        for key, _ in self._objects("checkpoints"):
            names.setdefault(key.removeprefix(root).partition("/")[0], []).append(key)
        return names

    def _abort_parts(self, before_start: int) -> set[str]:
        """Give up multipart uploads of earlier starts: their parts are invisible, but paid for."""
        found = set()
        root = self.place.key("checkpoints") + "/"
        with self.place.reporting():
            pages = self.client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self.place.bucket, Prefix=root):
                for upload in page.get("Uploads", ()):
                    name = upload["Key"].removeprefix(root).partition("/")[0]
                    if self._is_before(name, before_start):
                        self.client.abort_multipart_upload(
                            Bucket=self.place.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )
                        found.add(name)
        return found

    @staticmethod
    def _is_before(name: str, start: int) -> bool:
        match = _NAME.fullmatch(name)
        return match is not None and int(match[2]) < start

    # --- S3 -----------------------------------------------------------------------------------------------------

    def _objects(self, *parts: str) -> Iterator[tuple[str, int]]:
        """Keys and sizes of all objects under a folder of the prefix."""
        with self.place.reporting():
            pages = self.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.place.bucket, Prefix=self.place.key(*parts) + "/"):
                for found in page.get("Contents", ()):
                    yield found["Key"], found["Size"]

    def _put(self, key: str, text: str) -> None:
        with self.place.reporting():
            self.client.put_object(
                Bucket=self.place.bucket,
                Key=key,
                Body=text.encode(),
                ContentType="application/json",
                ChecksumAlgorithm="SHA256",
            )

    def _delete(self, keys: Iterable[str]) -> None:
        keys = list(keys)
        for first in range(0, len(keys), _PER_DELETE):
            objects = [{"Key": key} for key in keys[first : first + _PER_DELETE]]
            with self.place.reporting():
                answer = self.client.delete_objects(
                    Bucket=self.place.bucket, Delete={"Objects": objects, "Quiet": True}
                )
            if failed := answer.get("Errors"):
                said = failed[0]
                raise StorageError(
                    f"{self.place}: {said.get('Key')} was not deleted: {said.get('Code')}: {said.get('Message')}"
                )


def is_gone(error: Any) -> bool:
    """Whether botocore's `ClientError` says that there is no such object."""
    return error.response["Error"].get("Code") in _GONE
