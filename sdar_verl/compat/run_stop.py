"""Where a trainer stops for its machine's sake, what it leaves behind, and what the next start finds undone."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from verl.trainer.ppo.v1.replay_buffer import DAPO_FILTERED_REWARD_COUNTS_KEY

from sdar_verl.compat.run_checkpoints import forget
from sdar_verl.evaluation.jsonl import drop_after_step, read_lines
from sdar_verl.guards import FILE as GUARD_FILE


class RunStop:
    """What a stop has to know of the step that runs; asked wherever the run may end.

    Attributes:
        validating: whether the panel is being played.
        left: whether the run ends: its episodes are aborted.
    """

    def __init__(self, trainer: Any):
        """`trainer` is an `SdarTrainer`, which need not be set up yet."""
        self._trainer = trainer
        self.validating = self.left = False
        self._began = 0.0
        self._unrecorded: tuple[Any, dict] | None = None  # batch and metrics of a trained step
        self._order: dict | None = None  # of the tasks, as the running step found it

    def watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call` with a look at the agent-loop workers after it: verl neither sees them die nor their episodes fail."""

        def look_after(*args: Any, **kwargs: Any) -> Any:
            self.leave(awake=True)  # not within: the episodes that it aborts fail, and that is no error then
            try:
                return call(*args, **kwargs)
            finally:
                if not self.left:  # whom a stop has aborted is not asked how it is
                    self._trainer.agent_loop_manager.check_alive()

        return look_after

    def step_begins(self) -> None:
        """The step before is recorded by now."""
        trainer = self._trainer
        self._unrecorded, self._began = None, time.monotonic()
        trainer.checkpoints.recorded(trainer.global_steps - 1)
        self.leave(awake=True, between=True)
        if trainer.train_dataloader_it is not None and trainer.checkpoints.may_abandon(trainer.global_steps):
            self._order = trainer.train_dataloader.state_dict()

    def step_trained(self, batch: Any, metrics: dict) -> None:
        """The running step changed the weights; nothing of it is written yet."""
        self._unrecorded = batch, metrics

    def abandons(self) -> bool:
        """Whether `leave` would give up the running step now; may be asked from any thread."""
        checkpoints = self._trainer.checkpoints
        return checkpoints.told_to_stop() is not None and checkpoints.may_abandon(self._trainer.global_steps)

    def leave(self, *, awake: bool, between: bool = False) -> None:
        """End the run if its machine goes away and this is a point to do so.

        `awake`: the rollout holds its memory; `between`: no step has begun since the last one was recorded.
        A trained step is saved and recorded; its validation is left to the next start. A running one is abandoned if
        the settings say so: then the step before it is what is saved, and its tasks come again.
        """
        trainer = self._trainer
        if trainer.checkpoints.told_to_stop() is None:
            return
        step = trainer.global_steps
        running = not (between or self.validating or self._unrecorded is not None)
        if running and not trainer.checkpoints.may_abandon(step):
            return
        self.left = True
        last = step - (running or between)
        if last > 0 and trainer.checkpoints.saved_step != last:
            if awake:
                trainer.checkpoint_manager.abort_replicas(reject_request=True)
                trainer.checkpoint_manager.sleep_replicas()
            trainer.global_steps = last
            if running:
                forget(trainer.train_dataloader, self._order, trainer._save_checkpoint)
            else:
                trainer._save_checkpoint()
            trainer.global_steps = step
        if self._unrecorded is not None:
            self._record(step, *self._unrecorded)
        # before the rest is shut down: the upload may be sealed meanwhile. Of an abandoned step the files may hold
        # episodes, which the next start drops
        trainer.checkpoints.recorded(last)
        trainer._shutdown_dump_executor()
        # asked again: it names the checkpoint that there is now
        raise trainer.guards.stop or trainer.checkpoints.told_to_stop()

    def _record(self, step: int, batch: Any, metrics: dict) -> None:
        """Write the metrics of a trained step, as verl does at its end."""
        trainer = self._trainer
        trainer.timing_raw.setdefault("step", time.monotonic() - self._began)
        epoch = (step - 1) // trainer.steps_per_epoch
        trainer._compute_metrics(batch, metrics, trainer.timing_raw, global_steps=step, epoch=epoch)
        metrics.pop(DAPO_FILTERED_REWARD_COUNTS_KEY, None)  # a table's, not a number
        trainer.logger.log(data=metrics, step=step)


def drop_later_records(run_dir: Path, step: int) -> None:
    """Take what was written of later steps than `step`, which will be trained again, out of the run's files."""
    for name in ("metrics.jsonl", "tokens.jsonl", "episodes/train.jsonl", "episodes/val.jsonl", GUARD_FILE):
        drop_after_step(run_dir / name, step or -1)  # a fresh start forgets step 0 as well


def panel_unplayed(run_dir: Path, step: int, test_freq: int) -> bool:
    """True if the run was interrupted after the checkpoint of `step` and before the end of its validation."""
    if test_freq <= 0 or step % test_freq:
        return False
    path = run_dir / "metrics.jsonl"
    lines = [line for line in read_lines(path) if line["step"] == step] if path.exists() else []
    if any("val/success_rate" in line["data"] for line in lines):
        return False
    drop_after_step(run_dir / "episodes" / "val.jsonl", step - 1)  # what was played of it
    return True
