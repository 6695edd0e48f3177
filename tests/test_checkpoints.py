"""Which checkpoint a run goes on from, whatever a kill left of the folder."""

import zipfile

import pytest

from sdar_verl.checkpoints import TRACKER, complete_steps, has_trained, missing_shards, prepare_resume, prune
from sdar_verl.errors import ConfigError


def checkpoint(root, step, actor=True, data=True):
    folder = root / f"global_step_{step}"
    folder.mkdir(parents=True)
    if actor:
        (folder / "actor").mkdir()
        (folder / "actor" / "model.pt").write_bytes(b"weights")
    if data:
        with zipfile.ZipFile(folder / "data.pt", "w") as archive:
            archive.writestr("data.pkl", b"state")
    return folder


def resume(root, **changes):
    return prepare_resume(root, **{"had_run": True, "resume_mode": "auto", "keep": 2, **changes})


def test_the_newest_complete_checkpoint_is_taken_and_the_tracker_points_there(tmp_path):
    for step in (8, 9, 10):  # 10 comes after 9, not before it as a text
        checkpoint(tmp_path, step)
    (tmp_path / TRACKER).write_text("9")
    assert resume(tmp_path) == 10
    assert (tmp_path / TRACKER).read_text() == "10"


def test_older_ones_are_pruned_as_the_configuration_says(tmp_path):
    for step in (1, 2, 3, 4):
        checkpoint(tmp_path, step)
    assert resume(tmp_path, keep=3) == 4
    assert complete_steps(tmp_path) == [2, 3, 4]
    assert resume(tmp_path, keep=None) == 4
    assert complete_steps(tmp_path) == [2, 3, 4]


def test_a_removal_that_a_kill_cut_is_finished_by_the_next(tmp_path):
    for step in (1, 2, 3):
        checkpoint(tmp_path, step)
    (tmp_path / "global_step_1").rename(tmp_path / ".pruned-1")
    assert prune(tmp_path, 1, protect=(2,)) == [] and complete_steps(tmp_path) == [2, 3]
    assert prune(tmp_path, 1) == [2] and [path.name for path in tmp_path.iterdir()] == ["global_step_3"]
    with pytest.raises(ConfigError, match="newest checkpoint is always kept"):
        prune(tmp_path, 0)


def test_a_checkpoint_that_a_kill_cut_is_passed_over(tmp_path):
    checkpoint(tmp_path, 3)
    checkpoint(tmp_path, 4, data=False)
    checkpoint(tmp_path, 5, actor=False)
    cut = checkpoint(tmp_path, 6) / "data.pt"
    cut.write_bytes(cut.read_bytes()[:10])
    (checkpoint(tmp_path, 7, data=False) / "actor" / "model.pt").unlink()
    (tmp_path / TRACKER).write_text("6")
    assert complete_steps(tmp_path) == [3]
    assert resume(tmp_path) == 3 and (tmp_path / TRACKER).read_text() == "3"


def test_a_checkpoint_that_lacks_a_rank_is_passed_over(tmp_path):
    for step, ranks in ((1, (0, 1, 2)), (2, (0, 2))):
        folder = checkpoint(tmp_path, step)
        for rank in ranks:
            (folder / "actor" / f"optim_world_size_3_rank_{rank}.pt").write_bytes(b"state")
    assert missing_shards(tmp_path / "global_step_2") == ["actor/optim_world_size_3_rank_1.pt"]
    assert complete_steps(tmp_path) == [1]


def test_only_a_recorded_step_counts_as_training(tmp_path):
    assert not has_trained(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step":0,"data":{}}\n{"step":1,"da')
    assert not has_trained(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step":0,"data":{}}\n{"step":1,"data":{}}\n')
    assert has_trained(tmp_path)


def test_a_run_without_a_checkpoint_never_starts_over_by_itself(tmp_path):
    root = tmp_path / "run" / "checkpoints"
    checkpoint(root, 1, data=False)
    with pytest.raises(ConfigError, match="without a complete checkpoint.*another sdar.run_dir.*resume_mode=disable"):
        resume(root)
    assert resume(root, resume_mode="disable") is None


def test_a_first_start_is_a_fresh_one(tmp_path):
    assert resume(tmp_path / "checkpoints", had_run=False) is None
    assert not (tmp_path / "checkpoints").exists()


def test_other_files_and_folders_are_left_alone(tmp_path):
    checkpoint(tmp_path, 1)
    (tmp_path / "global_step_x").mkdir()
    (tmp_path / "global_step_2.txt").write_text("note")
    assert resume(tmp_path, keep=1) == 1
    assert (tmp_path / "global_step_x").exists() and (tmp_path / "global_step_2.txt").exists()
