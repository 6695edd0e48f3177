"""When a run saves beside verl's rhythm, and when it stops for its machine's sake."""

import time
import zipfile
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from sdar_verl.checkpoints import complete_steps
from sdar_verl.compat.run_checkpoints import RunCheckpoints, forget
from sdar_verl.errors import ConfigError
from sdar_verl.plan.cost import best_interval
from sdar_verl.requirements import check_checkpoints
from sdar_verl.spot import SpotStop
from sdar_verl.spot.notice import SAVE, STOP, NoticeBox
from sdar_verl.storage.manifest import LOCAL_NAME
from sdar_verl.storage.settings import CheckpointSettings, SpotSettings

CHECKPOINTS = {"s3": None, "keep": 2, "parallel": 4, "max_bandwidth": None, "attempts": 1, "verify": True}
SPOT = {"imds": False, "sigterm": True, "on_notice": "finish", "on_rebalance": "save", "poll_seconds": 1}


def config(run_dir):
    trainer = {"default_local_dir": str(run_dir / "checkpoints"), "max_actor_ckpt_to_keep": 2}
    trainer |= {"max_critic_ckpt_to_keep": 2, "save_freq": -1, "nnodes": 1, "del_local_ckpt_after_load": False}
    return OmegaConf.create({
        "trainer": trainer,
        "actor_rollout_ref": {"actor": {"checkpoint": {"async_save": False}}},
    })  # fmt: skip


def settings(run_dir, s3=None, **spot):
    return SimpleNamespace(
        run_dir=str(run_dir),
        checkpoints=CheckpointSettings(**{**CHECKPOINTS, "shared_folder": False, "s3": s3}),
        spot=SpotSettings(**{**SPOT, "upload_seconds": 5, "mtbf_hours": None, **spot}),
    )


@pytest.fixture
def run(tmp_path):
    made = []

    def make(step=0, s3=None, **spot):
        tmp_path.mkdir(exist_ok=True)
        made.append(RunCheckpoints(settings(tmp_path, s3, **spot), config(tmp_path), step))
        return made[-1]

    yield make
    for checkpoints in made:
        checkpoints.close(None)


def save(checkpoints, folder, step, seconds=0.0):
    def write():
        time.sleep(seconds)
        (folder / f"global_step_{step}" / "actor").mkdir(parents=True, exist_ok=True)

    checkpoints.save(step, folder / f"global_step_{step}", write)


def write_whole(root, step):
    """As much of a checkpoint as tells that it is whole."""
    folder = root / f"global_step_{step}"
    (folder / "actor").mkdir(parents=True)
    (folder / "actor" / "model.pt").write_bytes(b"weights")
    with zipfile.ZipFile(folder / "data.pt", "w") as archive:
        archive.writestr("data.pkl", "order")


def test_without_notice_and_interval_verls_rhythm_is_left_alone(run):
    checkpoints = run()
    assert not checkpoints.is_due(1, last=False) and not checkpoints.is_due(9, last=True)
    assert checkpoints.told_to_stop() is None


def test_a_wish_to_save_is_met_once_and_a_stop_always(run, tmp_path):
    checkpoints, box = run(), NoticeBox(tmp_path)
    assert box.put(SAVE, "rebalance")
    assert checkpoints.is_due(4, last=False) and checkpoints.told_to_stop() is None
    save(checkpoints, tmp_path / "checkpoints", 4)
    assert not checkpoints.is_due(4, last=False) and not checkpoints.is_due(5, last=False)
    assert box.put(STOP, "interruption") and not box.put(SAVE, "rebalance")
    assert checkpoints.is_due(5, last=False)
    save(checkpoints, tmp_path / "checkpoints", 5)
    assert not checkpoints.is_due(5, last=False), "it is saved"
    stop = checkpoints.told_to_stop()
    assert isinstance(stop, SpotStop) and "interruption; the same command goes on from the checkpoint of step 5" in str(
        stop
    )


def test_notices_count_only_where_they_were_asked_for(run, tmp_path):
    checkpoints = run(sigterm=False, on_notice="abandon")
    NoticeBox(tmp_path).put(STOP, "someone wrote a file")
    assert checkpoints.told_to_stop() is None and not checkpoints.is_due(1, last=False)
    assert not checkpoints.may_abandon(5)


def test_the_first_step_is_never_abandoned(run):
    assert [run(on_notice="abandon").may_abandon(step) for step in (1, 2)] == [False, True]
    assert not run(on_notice="finish").may_abandon(2)


def test_the_interval_follows_from_what_a_save_takes(run, tmp_path, monkeypatch):
    checkpoints = run(mtbf_hours=2)
    assert checkpoints.is_due(1, last=False), "the first save tells how long it takes"
    save(checkpoints, tmp_path / "checkpoints", 1, seconds=0.05)
    assert 0.05 <= checkpoints._save_seconds < 1
    wanted = best_interval(checkpoints._save_seconds, 7200)
    now = checkpoints._saved_at
    monkeypatch.setattr(time, "monotonic", lambda: now + wanted - 0.1)
    assert not checkpoints.is_due(2, last=False) and checkpoints.is_due(2, last=True)
    monkeypatch.setattr(time, "monotonic", lambda: now + wanted + 0.1)
    assert checkpoints.is_due(2, last=False)
    monkeypatch.undo()


def test_a_folder_that_is_written_over_is_no_checkpoint_meanwhile(run, tmp_path):
    checkpoints, folder = run(), tmp_path / "checkpoints" / "global_step_3"
    folder.mkdir(parents=True)
    for name in ("data.pt", LOCAL_NAME):
        (folder / name).write_text("old")
    left = []
    checkpoints.save(3, folder, lambda: left.extend(folder.iterdir()))
    assert left == []


def test_old_checkpoints_of_an_earlier_start_go_too(run, tmp_path):
    """verl keeps in memory what it may remove; a run that was interrupted often would fill its disk."""
    folder = tmp_path / "checkpoints"
    for step in (1, 2, 3, 4):
        write_whole(folder, step)
    checkpoints = run(step=4)
    checkpoints.save(5, folder / "global_step_5", lambda: write_whole(folder, 5))
    assert complete_steps(folder) == [4, 5]


def test_with_s3_verl_removes_nothing_itself(tmp_path):
    both = config(tmp_path)
    checkpoints = RunCheckpoints(settings(tmp_path, "s3://bucket/run?region=us-east-1"), both, 0)
    assert both.trainer.max_actor_ckpt_to_keep is None and both.trainer.max_critic_ckpt_to_keep is None
    checkpoints.close(None)


def test_an_abandoned_steps_tasks_come_again():
    class Loader:
        def state_dict(self):
            return "after the abandoned step"

    loader, saved = Loader(), []
    forget(loader, {"before": "it"}, lambda: saved.append(loader.state_dict()))
    assert saved == [{"before": "it"}] and loader.state_dict() == "after the abandoned step"


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("trainer.nnodes", 2, "needs a run folder that all nodes share, and sdar.checkpoints.shared_folder=true"),
        ("actor_rollout_ref.actor.checkpoint.async_save", True, "needs .*async_save=false"),
        ("trainer.del_local_ckpt_after_load", True, "needs trainer.del_local_ckpt_after_load=false"),
        ("trainer.save_freq", 5, "mtbf_hours and trainer.save_freq=5 each say when to save"),
    ],
)
def test_what_does_not_go_together(tmp_path, path, value, says):
    both = config(tmp_path)
    wanted = settings(tmp_path, "s3://bucket/run", mtbf_hours=1)
    check_checkpoints(OmegaConf.to_container(both), wanted)
    OmegaConf.update(both, path, value)
    with pytest.raises(ConfigError, match=says):
        check_checkpoints(OmegaConf.to_container(both), wanted)


@pytest.mark.parametrize("step, left", [(0, []), (2, [1, 2])])
def test_checkpoints_of_later_steps_than_the_start_are_put_away(run, tmp_path, capsys, step, left):
    for number in (1, 2, 3):
        write_whole(tmp_path / "checkpoints", number)
    run(step=step)
    assert complete_steps(tmp_path / "checkpoints") == left
    assert complete_steps(tmp_path / "checkpoints" / "earlier-1") == [n for n in (1, 2, 3) if n not in left]
    assert "checkpoints of later steps were moved to" in capsys.readouterr().out
