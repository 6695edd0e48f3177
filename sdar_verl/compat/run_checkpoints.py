"""When a trainer saves beyond verl's own rhythm, when it stops for its machine's sake, and who keeps what it saved."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from sdar_verl.checkpoints import complete_steps, prune
from sdar_verl.plan.cost import best_interval
from sdar_verl.settings import Settings
from sdar_verl.spot import SpotStop
from sdar_verl.spot.notice import SAVE, STOP, Notice, NoticeBox
from sdar_verl.storage.identity import RunIdentity
from sdar_verl.storage.keeper import CheckpointKeeper
from sdar_verl.storage.local import begin_saving, put_away

HOUR = 3600.0


class RunCheckpoints:
    """Attributes:
    saved_step: the newest checkpoint's; 0 before the first.
    """

    def __init__(self, settings: Settings, config: DictConfig, step: int):
        """`step` is the one that the run goes on from, 0 for a fresh start; the run's files end with it."""
        trainer = config.trainer
        run_dir, root = Path(settings.run_dir), Path(trainer.default_local_dir)
        self._spot, self._box = settings.spot, NoticeBox(run_dir)
        self._served: Notice | None = None  # a wish to save that was met
        self._asynchronous = bool(config.actor_rollout_ref.actor.checkpoint.get("async_save"))
        self.saved_step, self._saved_at, self._save_seconds = step, time.monotonic(), None
        self._root, self._keep, keep_local = root, trainer.max_actor_ckpt_to_keep, None
        if settings.checkpoints.s3 is not None:  # verl would delete what is still being sent
            self._keep, keep_local = None, self._keep
            with open_dict(config):
                trainer.max_actor_ckpt_to_keep = trainer.max_critic_ckpt_to_keep = None
        identity = RunIdentity.read(run_dir)
        if identity is None:  # started by verl's own entry
            identity = RunIdentity.new().after(0)
            identity.write(run_dir)
        if later := [found for found in complete_steps(root) if found > step]:  # resume_mode disable or resume_path
            away = put_away(root, later)
            print(f"[sdar] this run starts at step {step}: checkpoints of later steps were moved to {away}", flush=True)
        self._keeper = CheckpointKeeper(run_dir, root, settings.checkpoints, identity, keep_local)
        if step > 0:
            self._keeper.resumed(step)

    # --- saving -------------------------------------------------------------------------------------------------

    def save(self, step: int, folder: Path, write: Callable[[], None]) -> None:
        """Let `write` save `step` into `folder`; its upload begins."""
        begin_saving(folder)
        began = time.monotonic()
        write()
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - began
        self.saved_step = step
        if not self._asynchronous:  # else it is not complete yet
            self._keeper.saved(step)
            if self._keep:  # verl forgets, when it starts again, what it wrote before
                prune(self._root, self._keep)

    def is_due(self, step: int, last: bool) -> bool:
        """Whether `step`, just trained and not saved by verl's rhythm, must be."""
        if self.saved_step == step:
            return False
        notice = self._box.look() if self._spot.watched else None
        if notice is not None and notice != self._served:
            self._served = notice if notice.action == SAVE else None
            return True
        if self._spot.mtbf_hours is None:
            return False
        if self._save_seconds is None or last:  # the first one tells how long it takes
            return True
        wanted = best_interval(max(self._save_seconds, 1e-3), self._spot.mtbf_hours * HOUR)
        return time.monotonic() - self._saved_at >= wanted

    def recorded(self, step: int) -> None:
        """The run's files hold all of `step`."""
        self._keeper.recorded(step)

    def metrics(self) -> dict[str, float]:
        """``checkpoint/...`` of the upload."""
        return self._keeper.metrics()

    # --- stopping -----------------------------------------------------------------------------------------------

    def told_to_stop(self) -> SpotStop | None:
        """The error that ends the run, if its machine goes away."""
        notice = self._box.look() if self._spot.watched else None
        if notice is None or notice.action != STOP:
            return None
        return SpotStop(f"{notice.why}; the same command goes on from the checkpoint of step {self.saved_step}")

    def may_abandon(self, step: int) -> bool:
        """Whether the running `step` is given up for a stop; the first one is not, since nothing would be left."""
        return self._spot.watched and self._spot.on_notice == "abandon" and step > 1

    def close(self, error: BaseException | None) -> None:
        """Wait for the upload: as long as it takes, or where the machine goes away, as long as the settings say."""
        self._keeper.close(self._spot.upload_seconds if isinstance(error, SpotStop) else None)


def forget(loader: Any, state: dict[str, Any], write: Callable[[], None]) -> None:
    """Let `write` save an earlier `state` of the data loader than its own: the running step's tasks come again."""
    loader.state_dict = lambda: state
    try:
        write()
    finally:
        del loader.state_dict
