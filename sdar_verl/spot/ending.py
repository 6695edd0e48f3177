"""The launcher's side of a stop for the machine's sake: it hears of it and leaves word for the trainer."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdar_verl.spot import SpotStop
from sdar_verl.spot.imds import Watcher
from sdar_verl.spot.notice import STOP, NoticeBox
from sdar_verl.storage.settings import SpotSettings


class Ending:
    """Attributes:
    box: where the trainer looks.
    """

    def __init__(self, run_dir: Path, settings: SpotSettings):
        self.box, self._settings = NoticeBox(run_dir), settings
        self._trainer_starts = self._signalled = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within it notices are heard; `ConfigError` if one of the ways to hear of them is not there."""
        self.box.clear()
        watcher = None
        if self._settings.imds:
            watcher = Watcher(
                self.box.put, on_rebalance=self._settings.on_rebalance, poll_seconds=self._settings.poll_seconds
            )
        before = signal.signal(signal.SIGTERM, self._heard) if self._settings.sigterm else None
        try:
            yield
        finally:
            if watcher is not None:
                watcher.close()
            if before is not None:
                signal.signal(signal.SIGTERM, before)

    def take_signals(self) -> None:
        """Ray has started, and has put a handler of its own in the place of ours; from here on a trainer looks."""
        self._trainer_starts = True
        if self._settings.sigterm:
            signal.signal(signal.SIGTERM, self._heard)
        notice = self.box.look()
        if notice is not None and notice.action == STOP:
            raise SpotStop(f"{notice.why}, before anything was trained")

    def _heard(self, number: int, frame: Any) -> None:
        if not self._trainer_starts:
            raise SpotStop("SIGTERM, before anything was trained")
        if self._signalled:
            raise KeyboardInterrupt(f"signal {number}, for the second time")
        self._signalled = True
        try:
            self.box.put(STOP, "SIGTERM")
        except OSError as error:  # a full disk: the trainer cannot be told to save first
            raise KeyboardInterrupt(f"SIGTERM, and no notice can be left for the trainer: {error}") from error
