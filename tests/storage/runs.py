"""A run on one machine, without the training: what it saves, and what a start of it does."""

from __future__ import annotations

import time

from s3_service import record, save_checkpoint

from sdar_verl.checkpoints import complete_steps
from sdar_verl.storage.keeper import CheckpointKeeper
from sdar_verl.storage.restore import restore
from sdar_verl.storage.settings import CheckpointSettings


def settings(place, **changes):
    base = {"keep": 2, "parallel": 4, "max_bandwidth": None, "attempts": 3, "verify": True, "shared_folder": False}
    return CheckpointSettings(s3=None if place is None else str(place), **{**base, **changes})


class Run:
    """One start of a run in `folder`: restored as the launcher does it, with a keeper as the trainer has it."""

    def __init__(self, folder, place, keep_local=2, **changes):
        self.dir, self.root, self.said = folder, folder / "checkpoints", []
        self.settings = settings(place, **changes)
        self.identity = restore(self.dir, self.root, self.settings, resume_mode="auto", say=self.said.append)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.identity.write(self.dir)
        self.keeper = CheckpointKeeper(
            self.dir, self.root, self.settings, self.identity, keep_local, first_wait=0.01, say=self.said.append
        )

    @property
    def newest(self):
        return max(complete_steps(self.root), default=None)

    def save(self, step, size=1000, recorded=True):
        folder = save_checkpoint(self.root, step, size)
        self.keeper.saved(step)
        record(self.dir, step)
        if recorded:
            self.keeper.recorded(step)
        return folder

    def until(self, done, timeout=20):
        limit = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < limit, self.said
            time.sleep(0.01)

    def uploaded(self, step):
        self.until(lambda: self.keeper.metrics()["checkpoint/uploaded_step"] == step)
