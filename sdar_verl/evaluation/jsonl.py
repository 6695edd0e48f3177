"""Append-only JSON-lines files that several processes may write and that a kill may cut anywhere."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from sdar_verl.evaluation.files import write_atomic
from sdar_verl.evaluation.records import EpisodeRecord, RecordError, TokenRecord, from_dict, to_dict

T = TypeVar("T")
logger = logging.getLogger(__name__)
_BLOCK = 1 << 16


class JsonlWriter:
    """Appends one line per record with a single write, so lines of several processes and threads never mix.

    A half line that an earlier, killed process left at the end is removed before the first line is added.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._handle: int | None = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._locked(self._remove_torn_tail)

    def write(self, record: EpisodeRecord | TokenRecord | dict[str, Any]) -> None:
        """Append one record, or a plain mapping (metrics).

        Raises:
            RecordError: the record is malformed; nothing was written.
            OSError: the disk is full or gone; the file keeps only whole lines.
            ValueError: the writer is closed.
        """
        content = record if isinstance(record, dict) else to_dict(record)
        try:
            line = json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n"
        except (TypeError, ValueError) as err:
            raise RecordError(f"cannot write a line of {self.path}: {err}") from err
        self._locked(lambda handle: self._append(handle, line.encode("ascii")))

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _locked(self, action: Callable[[int], None]) -> None:
        with self._lock:
            if self._handle is None:
                raise ValueError(f"the writer of {self.path} is closed")
            fcntl.flock(self._handle, fcntl.LOCK_EX)
            try:
                action(self._handle)
            finally:
                fcntl.flock(self._handle, fcntl.LOCK_UN)

    def _append(self, handle: int, data: bytes) -> None:
        before = os.fstat(handle).st_size
        try:
            complete = os.write(handle, data) == len(data)
        except OSError:
            os.ftruncate(handle, before)
            raise
        if not complete:
            os.ftruncate(handle, before)
            raise OSError(f"{self.path} took only part of a line; is the disk full?")

    def _remove_torn_tail(self, handle: int) -> None:
        size = end = os.fstat(handle).st_size
        while end > 0:
            start = max(0, end - _BLOCK)
            newline = os.pread(handle, end - start, start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            logger.warning("%s ended in the middle of a line (a killed run); %d bytes removed", self.path, size - end)
            os.ftruncate(handle, end)


def read_lines(path: Path | str) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, in order. A last line without its newline is what a kill leaves: it is left out.

    Raises:
        RecordError: any other line is no JSON object; the message names file and line.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                logger.warning("%s: line %d is cut off (a killed run) and left out", path, number)
                return
            try:
                content = json.loads(line)
            except ValueError as err:  # also a wrong encoding
                raise RecordError(f"{path}, line {number} is damaged: {err}") from err
            if not isinstance(content, dict):
                raise RecordError(f"{path}, line {number} is no object but {type(content).__name__}")
            yield content


def read_records(path: Path | str, kind: type[T]) -> Iterator[T]:
    """Like `read_lines`, each line checked and built as `kind` (`EpisodeRecord` or `TokenRecord`)."""
    for number, content in enumerate(read_lines(path), start=1):
        try:
            yield from_dict(kind, content)
        except RecordError as err:
            raise RecordError(f"{path}, line {number}: {err}") from err


def drop_after_step(path: Path | str, step: int) -> int:
    """Forget lines with ``"step"`` above `step`; a run resumed from that step's checkpoint plays them again.

    Call it while no writer has the file open. A missing file has nothing to drop. Returns the number of lines dropped.
    """
    path = Path(path)
    if not path.exists():
        return 0
    kept, dropped = [], 0
    for content in read_lines(path):
        if not isinstance(content.get("step"), int):
            raise RecordError(f"{path} has a line without an integer step, so it cannot be cut at step {step}")
        if content["step"] <= step:
            kept.append(json.dumps(content, separators=(",", ":")) + "\n")
        else:
            dropped += 1
    write_atomic(path, "".join(kept))
    return dropped
