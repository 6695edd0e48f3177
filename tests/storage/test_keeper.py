"""The background thread: what it uploads, what it keeps on both sides, and what S3's failures do to it."""

import time

import pytest
from s3_service import content_of, record, save_checkpoint

from sdar_verl.checkpoints import complete_steps
from sdar_verl.storage.identity import RunIdentity
from sdar_verl.storage.local import read_local
from sdar_verl.storage.remote import RemoteCheckpoints
from sdar_verl.storage.restore import restore


def test_an_empty_machine_goes_on_from_s3_alone(start):
    first = start("first")
    saved = first.save(7)
    first.keeper.close()
    second = start("second")
    assert second.newest == 7
    assert content_of(second.root / "global_step_7") == content_of(saved)
    left = {name: text for name, text in content_of(first.dir).items() if not name.startswith("checkpoints/")}
    now = {name: text for name, text in content_of(second.dir).items() if not name.startswith("checkpoints/")}
    assert now.pop("run.json") != left.pop("run.json") and now == left and "episodes/train.jsonl" in left
    assert (second.identity.run, second.identity.start) == (first.identity.run, 2)
    assert read_local(second.root / "global_step_7").step == 7


def test_records_are_those_of_the_step_even_if_the_run_has_gone_on(start, place):
    run = start("first")
    run.save(3, recorded=False)
    time.sleep(0.3)
    assert RemoteCheckpoints(place).entries() == [], "sealed before the step was recorded"
    run.keeper.recorded(2)  # of another step
    run.keeper.recorded(3)
    record(run.dir, 5)  # the file has grown before it is sent
    run.uploaded(3)
    other = start("second")
    assert (other.dir / "metrics.jsonl").read_text().count("\n") == 4
    assert (run.dir / "metrics.jsonl").read_text().count("\n") == 6


def test_both_sides_keep_as_many_as_they_should(start, place):
    run = start("first", keep=3, keep_local=2)
    for step in (8, 9, 10, 11):  # 10 comes after 9, not before it as a text
        run.save(step)
        run.uploaded(step)
    run.keeper.close()
    assert complete_steps(run.root) == [10, 11]
    assert [entry.step for entry in RemoteCheckpoints(place).entries()] == [9, 10, 11]
    objects = [key for key, _ in RemoteCheckpoints(place)._objects("checkpoints")]
    assert not any("step-0000000008" in key for key in objects) and len(objects) == 3 * (3 + 5)


def test_what_waits_for_its_upload_stays_and_the_middle_is_passed_over(start, s3):
    run = start("first", keep_local=1)
    s3.delay = 0.4
    run.save(1)
    run.until(lambda: any("PUT" in call for call in s3.calls))
    for step in (2, 3):
        run.save(step)
    assert run.keeper.metrics()["checkpoint/upload_pending"] == 2
    assert complete_steps(run.root) == [1, 2, 3]
    run.keeper.recorded(1)
    assert run.keeper.close()
    numbers = run.keeper.metrics()
    assert numbers["checkpoint/uploaded_step"] == 3 and numbers["checkpoint/upload_superseded"] == 1
    assert complete_steps(run.root) == [3]


def test_retention_never_takes_what_was_just_kept_nor_prefers_another_runs(start, tmp_path):
    other = start("run", place=None)
    for step in (50, 60):
        save_checkpoint(other.root, step)
        other.keeper.saved(step)
        other.until(lambda step=step: read_local(other.root / f"global_step_{step}") is not None)
    other.keeper.close()
    RunIdentity.new().after(0).write(tmp_path / "run")  # what resume_mode=disable writes
    run = start("run", keep_local=1)
    assert run.newest is None, "another run's checkpoints were taken"
    assert any("steps 50, 60 are another run's; moved to" in text for text in run.said)
    assert complete_steps(run.root / "earlier-1") == [50, 60]
    save_checkpoint(run.root, 70)  # nothing tells whose it is
    run.save(1)
    run.uploaded(1)
    run.keeper.close()
    assert 1 in complete_steps(run.root)


def test_records_of_a_slow_upload_outlive_the_next_steps(start, s3, place):
    run = start("first", keep=3)
    s3.delay = 0.3
    run.save(1)
    run.until(lambda: any("PUT" in call for call in s3.calls))
    run.save(2)  # saved and recorded while the first is on its way
    s3.delay = 0
    run.uploaded(2)
    assert [entry.step for entry in RemoteCheckpoints(place).entries()] == [1, 2]


def test_errors_are_tried_again_counted_and_said(start, s3, monkeypatch):
    monkeypatch.setattr("sdar_verl.storage.place.ATTEMPTS", 1)
    run = start("first")
    s3.fail.append(("PUT .*rank_1", 500, "InternalError", 2))
    run.save(1)
    run.uploaded(1)
    assert run.keeper.metrics()["checkpoint/upload_failures"] == 2
    assert sum("try 1" in text or "try 2" in text for text in run.said) == 2
    sent = [call for call in s3.calls if call.startswith("PUT") and "rank_0" in call]
    assert len(sent) == 1, "what arrived once is not sent again"
    assert start("second").newest == 1


def test_an_upload_that_never_succeeds_leaves_what_is_there(start, s3, place, monkeypatch):
    monkeypatch.setattr("sdar_verl.storage.place.ATTEMPTS", 1)
    run = start("first", keep=1, keep_local=1)
    run.save(1)
    run.uploaded(1)
    s3.fail.append(("PUT .*manifests", 503, "SlowDown", 1000))
    for step in (2, 3):
        run.save(step)
        run.until(lambda: run.keeper.metrics()["checkpoint/upload_pending"] == 0)
    assert run.keeper.close() is False
    assert any("step 3 is on this machine alone" in text for text in run.said)
    assert [entry.step for entry in RemoteCheckpoints(place).entries()] == [1]
    assert complete_steps(run.root) == [1, 2, 3], "what lies here may be all there is"
    s3.fail.clear()
    assert start("second").newest == 1
    assert start("first").newest == 3, "the machine that saved it has the newer one"


def test_no_s3_at_all_does_not_stop_the_run(start, s3, place, monkeypatch):
    monkeypatch.setattr("sdar_verl.storage.place.ATTEMPTS", 1)
    run = start("first")
    s3.close()
    run.save(1)
    run.until(lambda: run.keeper.metrics()["checkpoint/upload_pending"] == 0)
    assert run.keeper.metrics()["checkpoint/upload_failures"] >= 3 and run.newest == 1
    assert any("cannot be reached" in text for text in run.said)


def test_a_stop_with_little_time_gives_up_and_says_so(start, s3):
    run = start("first")
    run.save(1)
    run.uploaded(1)
    s3.delay = 3
    run.save(2)
    began = time.monotonic()
    assert run.keeper.close(timeout=0.3) is False
    assert time.monotonic() - began < 25
    assert any("did not come to its end" in text for text in run.said)
    s3.delay = 0
    assert start("second").newest == 1


def test_bandwidth_is_limited(start, s3):
    run = start("first", max_bandwidth=1)
    began = time.monotonic()
    run.save(1, size=1 << 20)  # two ranks: 2 MiB
    run.uploaded(1)
    assert time.monotonic() - began > 1.0


def test_large_files_go_in_parts(start, s3, monkeypatch):
    monkeypatch.setattr("sdar_verl.storage.transfer.PART", 5 << 20)
    run = start("first")
    saved = run.save(1, size=12 << 20)
    run.uploaded(1)
    assert sum("partNumber" in call for call in s3.calls) == 6
    second = start("second")
    assert content_of(second.root / "global_step_1") == content_of(saved)


def test_without_s3_a_checkpoint_still_gets_its_manifest(start):
    run = start("first", place=None)
    folder = save_checkpoint(run.root, 1)
    run.keeper.saved(1)
    assert run.keeper.close() and run.keeper.metrics() == {}
    manifest = read_local(folder)
    assert [file.path for file in manifest.checkpoint] == [
        "actor/model_world_size_2_rank_0.pt", "actor/model_world_size_2_rank_1.pt", "data.pt",
    ]  # fmt: skip


def test_a_full_disk_costs_the_local_manifest_alone(start, monkeypatch):
    run = start("first")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sdar_verl.storage.keeper.write_local", full)
    run.save(1)
    run.uploaded(1)
    assert any("No space left" in text for text in run.said)
    assert run.newest == 1 and start("second").newest == 1


def test_leftovers_of_killed_uploads_are_swept_by_the_next_start(start, place):
    run = start("first")
    run.save(1)
    run.uploaded(1)
    remote = RemoteCheckpoints(place)
    stray = place.key("checkpoints", "step-0000000002.start-000001.0badcafe", "checkpoint", "data.pt")
    own = place.key("checkpoints", "step-0000000002.start-000002.0badcafe", "checkpoint", "data.pt")

    def half(key):
        remote.client.put_object(Bucket=place.bucket, Key=key, Body=b"half")
        remote.client.create_multipart_upload(Bucket=place.bucket, Key=f"{key}.part")

    half(stray)
    run.keeper.close()
    second = start("second")
    assert second.identity.start == 2
    half(own)
    second.save(2)
    second.uploaded(2)
    keys = [key for key, _ in remote._objects("checkpoints")]
    assert stray not in keys and own in keys
    uploads = remote.client.list_multipart_uploads(Bucket=place.bucket)["Uploads"]
    assert [upload["Key"] for upload in uploads] == [f"{own}.part"]


def test_without_the_right_to_sweep_uploads_go_on(start, s3):
    run = start("first")
    s3.fail.append((r"GET .*\?.*uploads", 403, "AccessDenied", 10**6))
    run.save(1)
    run.uploaded(1)
    assert any("cannot be removed" in text and "s3:ListBucketMultipartUploads" in text for text in run.said), run.said


def test_another_run_never_enters_the_place(start, tmp_path):
    from sdar_verl.errors import ConfigError

    run = start("first")
    run.save(1)
    run.uploaded(1)
    RunIdentity.new().after(0).write(tmp_path / "other")
    with pytest.raises(ConfigError, match="checkpoints of another run"):
        start("other")
    save_checkpoint(tmp_path / "nameless" / "checkpoints", 5)
    with pytest.raises(ConfigError, match="of another one"):
        start("nameless")
    with pytest.raises(ConfigError, match="earlier run.*prune"):
        restore(tmp_path / "new", tmp_path / "new" / "checkpoints", run.settings, resume_mode="disable")
