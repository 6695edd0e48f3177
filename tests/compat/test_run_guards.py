"""Guards inside a run: their file, an interruption, and the checkpoint before a stop."""

import pytest
import torch

from sdar_verl import guards
from sdar_verl.compat.run_guards import RunGuards
from sdar_verl.compat.run_stop import RunStop
from sdar_verl.compat.trainer import SdarTrainer
from sdar_verl.evaluation.jsonl import JsonlWriter, drop_after_step, read_lines
from sdar_verl.guards import GuardSettings, GuardStop

STOP = {"kl_blowup": GuardSettings("stop", 1.0, 2), "zero_advantage": GuardSettings("warn", 0.5, 1)}


def test_findings_are_written_told_once_and_stop_the_run(tmp_path, capsys):
    found = RunGuards(tmp_path, STOP)
    metrics = {guards.KL: torch.tensor(3.0), guards.ZERO_ADVANTAGE: 1.0, "other": "text"}
    assert found.look(1, metrics) == {"guard/kl_blowup": 0.0, "guard/zero_advantage": 1.0}
    assert found.stop is None
    assert found.look(2, metrics) == {"guard/kl_blowup": 1.0, "guard/zero_advantage": 1.0}
    assert isinstance(found.stop, GuardStop) and "step 2: kl_blowup" in str(found.stop)
    lines = list(read_lines(tmp_path / guards.FILE))
    assert [(line["step"], line["guard"]) for line in lines] == [
        (1, "zero_advantage"),
        (2, "kl_blowup"),
        (2, "zero_advantage"),
    ]
    assert capsys.readouterr().out.count("guard zero_advantage") == 1


def test_a_resumed_run_remembers_the_steps_before_it(tmp_path):
    with JsonlWriter(tmp_path / "metrics.jsonl") as writer:
        for step in range(3):
            writer.write({"step": step, "data": {guards.KL: 3.0} if step else {"val/success_rate": 0.1}})
    drop_after_step(tmp_path / "metrics.jsonl", 1)
    found = RunGuards(tmp_path, STOP)
    found.look(2, {guards.KL: 3.0})
    assert found.stop is not None


def test_a_blind_guard_that_should_stop_says_so_once(tmp_path, capsys):
    found = RunGuards(tmp_path, STOP)
    found.look(1, {guards.ZERO_ADVANTAGE: 0.1})
    found.look(2, {guards.ZERO_ADVANTAGE: 0.1})
    assert capsys.readouterr().out.count("guard kl_blowup cannot see: actor/kl_loss is not measured") == 1
    assert not (tmp_path / guards.FILE).exists()


class Untold:
    """Checkpoints of a run whose machine stays."""

    saved_step = 0

    def save(self, step, folder, write):
        write()
        self.saved_step = step

    def is_due(self, step, last):
        return False

    def told_to_stop(self):
        return None

    def recorded(self, step):
        pass

    def metrics(self):
        return {}


@pytest.mark.parametrize("due", [True, False])
def test_the_step_that_stops_has_its_checkpoint_and_its_metrics_first(tmp_path, monkeypatch, due):
    """verl's order of a step: step, checkpoint where due, end of step, metrics, begin of the next step."""
    told = []
    trainer = object.__new__(SdarTrainer)
    trainer.guards, trainer.checkpoints, trainer.global_steps = RunGuards(tmp_path, STOP), Untold(), 0
    trainer.train_dataloader_it, trainer.total_training_steps, trainer.stops = None, 9, RunStop(trainer)
    trainer._step_folder = lambda: tmp_path
    trainer.timing_raw, trainer.skill_learning = {}, None
    base = SdarTrainer.__mro__[1]
    trainer.settings = type("S", (), {"teacher": type("T", (), {"update_rate": None})})
    monkeypatch.setattr(base, "_save_checkpoint", lambda self: told.append(f"save {self.global_steps}"))
    monkeypatch.setattr(base, "on_step_end", lambda self: told.append(f"end {self.global_steps}"))
    monkeypatch.setattr(base, "_shutdown_dump_executor", lambda self: told.append("shut"))
    monkeypatch.setattr(base, "step", lambda self, metrics, timing: metrics.update({guards.KL: 5.0}))
    with pytest.raises(GuardStop, match="step 2: kl_blowup"):
        for trainer.global_steps in (1, 2, 3):
            trainer.on_step_begin()
            metrics = {}
            trainer.step(metrics, {})
            if due:
                trainer._save_checkpoint()
            trainer.on_step_end()
            told.append(f"log {metrics['guard/kl_blowup']}")
    saves = ["save 1"] if due else []
    assert told == [*saves, "end 1", "log 0.0", "save 2", "end 2", "log 1.0", "shut"]
