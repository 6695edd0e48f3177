"""Where a run stops for its machine's sake, and what is saved and recorded of it, at each point of a step."""

from types import SimpleNamespace

import pytest

from sdar_verl.compat.run_stop import RunStop, drop_later_records, panel_unplayed
from sdar_verl.evaluation.jsonl import JsonlWriter, read_lines
from sdar_verl.spot import SpotStop


class Loader:
    """A data loader that stands behind the tasks of a step."""

    def __init__(self):
        self.position = 0

    def state_dict(self):
        return {"position": self.position}


class Trainer:
    """What `RunStop` asks of a trainer; `told` is what happened, in its order."""

    def __init__(self, step, saved, abandons):
        self.told, self.global_steps, self.abandons, self.stopping = [], step, abandons, False
        self.checkpoints = SimpleNamespace(
            saved_step=saved, told_to_stop=lambda: SpotStop(f"after {self.checkpoints.saved_step}") if self.stopping
            else None, may_abandon=lambda step: self.abandons and step > 1,
            recorded=lambda step: self.told.append(f"recorded {step}"),
        )  # fmt: skip
        self.checkpoint_manager = SimpleNamespace(
            abort_replicas=lambda reject_request: self.told.append("abort"),
            sleep_replicas=lambda: self.told.append("sleep"),
        )
        self.guards, self.timing_raw, self.steps_per_epoch = SimpleNamespace(stop=None), {}, 100
        self.train_dataloader = self.train_dataloader_it = Loader()
        self.logger = SimpleNamespace(log=lambda data, step: self.told.append(f"log {step} {sorted(data)}"))
        self.agent_loop_manager = SimpleNamespace(check_alive=lambda: self.told.append("alive"))

    def _save_checkpoint(self):
        self.checkpoints.saved_step = self.global_steps
        self.told.append(f"save {self.global_steps} at {self.train_dataloader.state_dict()['position']}")

    def _compute_metrics(self, batch, metrics, timing, global_steps, epoch):
        metrics["step_seconds"] = timing["step"]

    def _shutdown_dump_executor(self):
        self.told.append("shut")


def stopped(trainer, stops, **where):
    """What a notice at this point leads to."""
    trainer.told.clear()
    trainer.stopping, step = True, trainer.global_steps
    with pytest.raises(SpotStop) as end:
        stops.leave(**where)
    assert stops.left and trainer.global_steps == step
    return [*trainer.told, str(end.value)]


def running(step=3, saved=1, abandons=False):
    trainer = Trainer(step, saved, abandons)
    stops = RunStop(trainer)
    stops.step_begins()
    trainer.train_dataloader.position = step  # the step took its tasks
    return trainer, stops


def test_nothing_happens_without_a_notice():
    trainer, stops = running()
    trainer.told.clear()
    stops.leave(awake=True)
    assert not trainer.told and not stops.left


def test_a_running_step_is_finished_unless_it_may_be_abandoned():
    trainer, stops = running()
    trainer.stopping = True
    stops.leave(awake=True)
    assert not stops.left
    stops.step_trained("batch", {"loss": 1.0})
    assert stopped(trainer, stops, awake=False) == [
        "save 3 at 3", "log 3 ['loss', 'step_seconds']", "recorded 3", "shut", "after 3"]  # fmt: skip


def test_an_abandoned_steps_tasks_come_again():
    trainer, stops = running(abandons=True)
    assert stopped(trainer, stops, awake=True) == [
        "abort", "sleep", "save 2 at 0", "recorded 2", "shut", "after 2"]  # fmt: skip
    assert trainer.train_dataloader.state_dict() == {"position": 3}, "the loader is its own again"


def test_what_is_saved_is_not_saved_again_and_the_engine_is_put_to_sleep_only_where_it_is_awake():
    trainer, stops = running(saved=2, abandons=True)
    assert stopped(trainer, stops, awake=True) == ["recorded 2", "shut", "after 2"]
    trainer, stops = running(abandons=True)
    assert stopped(trainer, stops, awake=False)[0] == "save 2 at 0"


def test_between_steps_and_while_the_panel_is_played_there_is_no_running_step():
    trainer = Trainer(3, 1, False)
    trainer.stopping = True
    with pytest.raises(SpotStop, match="after 2"):
        RunStop(trainer).step_begins()
    assert trainer.told == ["recorded 2", "abort", "sleep", "save 2 at 0", "recorded 2", "shut"]
    trainer, stops = running()
    stops.validating = True
    assert stopped(trainer, stops, awake=True)[:3] == ["abort", "sleep", "save 3 at 3"]


def test_before_the_first_step_there_is_nothing_to_save():
    trainer = Trainer(1, 0, True)
    trainer.stopping = True
    with pytest.raises(SpotStop, match="after 0"):
        RunStop(trainer).step_begins()
    assert trainer.told == ["recorded 0", "recorded 0", "shut"]


def test_a_guards_stop_goes_before():
    trainer, stops = running(abandons=True)
    trainer.guards.stop = ValueError("a guard's")
    trainer.stopping = True
    with pytest.raises(ValueError, match="a guard's"):
        stops.leave(awake=False)


@pytest.mark.parametrize("abandons", [True, False])
def test_a_running_step_is_given_up_only_for_a_notice_and_where_it_may_be(abandons):
    trainer, stops = running(abandons=abandons)
    assert not stops.abandons()
    trainer.stopping = True
    assert stops.abandons() == abandons
    trainer.global_steps = 1
    assert not stops.abandons()


def test_workers_are_looked_after_unless_the_run_has_aborted_them():
    trainer, stops = running(abandons=True)
    trainer.told.clear()
    call = stops.watched(lambda value: trainer.told.append(value))
    call("sampled")
    assert trainer.told == ["sampled", "alive"]
    trainer.stopping = True
    trainer.told.clear()
    with pytest.raises(SpotStop):
        call("sampled")
    assert "sampled" not in trainer.told and "alive" not in trainer.told


def test_later_records_are_dropped_and_an_unplayed_panel_is_seen(tmp_path):
    (tmp_path / "episodes").mkdir()
    for name in ("metrics.jsonl", "episodes/val.jsonl"):
        with JsonlWriter(tmp_path / name) as writer:
            for step in range(5):
                writer.write({"step": step, "data": {"val/success_rate": 0.5} if step == 2 else {}})
    drop_later_records(tmp_path, 4)
    assert not panel_unplayed(tmp_path, 2, 2), "it was played"
    assert not panel_unplayed(tmp_path, 3, 2) and not panel_unplayed(tmp_path, 4, -1), "it was not due"
    assert panel_unplayed(tmp_path, 4, 2)
    assert [line["step"] for line in read_lines(tmp_path / "episodes" / "val.jsonl")] == [0, 1, 2, 3]
    drop_later_records(tmp_path, 1)
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [0, 1]
    drop_later_records(tmp_path, 0)
    assert not list(read_lines(tmp_path / "metrics.jsonl")), "a fresh start forgets step 0 as well"
