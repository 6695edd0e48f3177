"""What a start goes on from, whatever happened to the checkpoints on both sides."""

import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from types import SimpleNamespace

import pytest
from s3_service import content_of, record, save_checkpoint

from sdar_verl import host
from sdar_verl.checkpoints import complete_steps
from sdar_verl.errors import ConfigError
from sdar_verl.storage.errors import DamageError, StorageError, StorageUnreachable
from sdar_verl.storage.place import Place
from sdar_verl.storage.remote import RemoteCheckpoints, new_name
from sdar_verl.storage.transfer import Transfer


def overwrite(place, pattern, change):
    """Change the objects whose key fits `pattern`: `change` gets the bytes, None removes."""
    client = place.connect()
    for found in client.list_objects_v2(Bucket=place.bucket, Prefix=place.prefix)["Contents"]:
        if re.search(pattern, found["Key"]):
            content = client.get_object(Bucket=place.bucket, Key=found["Key"])["Body"].read()
            if (new := change(content)) is None:
                client.delete_object(Bucket=place.bucket, Key=found["Key"])
            else:
                client.put_object(Bucket=place.bucket, Key=found["Key"], Body=new)


def flip(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("what", "change", "says"),
    [
        ("0000000002.start-000001.*rank_1", lambda content: content[:-5], "bytes instead of"),
        ("0000000002.start-000001.*rank_1", flip, "other content than was saved"),
        ("0000000002.start-000001.*data.pt", lambda content: None, "data.pt is missing"),
        ("0000000002.start-000001.*panel.json", flip, "panel.json has other content"),
        ("manifests/step-0000000002", lambda content: content[:100], "is damaged"),
        ("manifests/step-0000000002", lambda content: content.replace(b'"step": 2', b'"step": 3'), "hash does not fit"),
    ],
)
def test_a_broken_checkpoint_in_s3_is_passed_over_said_and_marked(start, place, tmp_path, what, change, says):
    run = start("first", keep=2)
    run.save(1)
    run.uploaded(1)
    old = content_of(run.root / "global_step_1")
    run.save(2)
    run.uploaded(2)
    run.keeper.close()
    overwrite(place, what, change)
    second = start("second", keep=1)
    assert second.newest == 1 and content_of(second.root / "global_step_1") == old
    assert any("step 2 in S3 is damaged" in text and says in text for text in second.said), second.said
    assert (second.dir / "metrics.jsonl").read_text().count("\n") == 2, "the records of the broken one were taken"
    remote = RemoteCheckpoints(place)
    assert [(e.step, e.damaged) for e in remote.entries(damaged=True)] == [(1, False), (2, True)]
    second.save(2)  # trained again: the new one counts, and only now the old ones go
    second.uploaded(2)
    second.keeper.close()
    assert [(e.step, e.start) for e in remote.entries()] == [(2, 2)]
    assert start("third").newest == 2


def test_a_machine_that_spoils_what_it_fetches_marks_nothing(start, place, monkeypatch):
    """Its disk is broken, not the checkpoint: the next machine must find it."""
    run = start("first")
    run.save(1)
    run.uploaded(1)
    run.keeper.close()

    def spoil(*_):
        raise DamageError("model.pt has other content than was saved")

    with monkeypatch.context() as patch:
        patch.setattr(Transfer, "download", spoil)
        with pytest.raises(StorageError, match="step 1 is whole in S3, but not as it arrives here: model.pt.*disk"):
            start("second")
    assert not any(entry.damaged for entry in RemoteCheckpoints(place).entries(damaged=True))
    assert start("third").newest == 1


def test_a_start_that_left_an_unfinished_upload_counts(start, place):
    """Its successor has a later number, by which it knows that the files are not its own, and removes them."""
    left = place.key("checkpoints", new_name(1, 1), "checkpoint", "data.pt")
    place.connect().put_object(Bucket=place.bucket, Key=left, Body=b"half")
    run = start("second")
    assert run.identity.start == 2
    run.save(1)
    run.uploaded(1)
    run.until(lambda: left not in {key for keys in RemoteCheckpoints(place)._uploads().values() for key in keys})


def test_a_broken_checkpoint_on_the_machine_is_fetched_again(start):
    run = start("first")
    saved = content_of(run.save(3))
    run.uploaded(3)
    run.keeper.close()
    shard = run.root / "global_step_3" / "actor" / "model_world_size_2_rank_0.pt"
    shard.write_bytes(flip(shard.read_bytes()))
    again = start("first")
    assert content_of(again.root / "global_step_3") == saved
    assert any("rank_0.pt has other content" in text and "damaged_global_step_3" in text for text in again.said)
    assert (again.root / "damaged_global_step_3").is_dir()


def test_without_s3_the_one_before_is_taken(start):
    run = start("first", place=None)
    for step in (1, 2):
        save_checkpoint(run.root, step)
        run.keeper.saved(step)
        run.until(lambda step=step: (run.root / f"global_step_{step}" / "checkpoint.json").exists())
    (run.root / "global_step_2" / "data.pt").write_bytes((run.root / "global_step_1" / "data.pt").read_bytes() + b"x")
    assert start("first", place=None).newest == 1


def test_the_machine_is_asked_before_s3_and_unfinished_uploads_are_made_up(start, s3, place):
    run = start("first")
    run.save(1)
    run.uploaded(1)
    run.keeper.close()
    save_checkpoint(run.root, 2)  # killed before its upload began
    record(run.dir, 2)
    s3.calls.clear()
    again = start("first")
    assert again.newest == 2 and not any("GET" in call and "checkpoints/" in call for call in s3.calls)
    again.keeper.resumed(2)
    again.uploaded(2)
    again.keeper.close()
    other = start("second")
    assert other.newest == 2
    s3.calls.clear()
    other.keeper.resumed(2)
    other.uploaded(2)
    assert not any("PUT" in call for call in s3.calls), "what is there is not sent again"


def test_nothing_usable_is_never_a_fresh_start(start, place):
    run = start("first")
    run.save(1)
    run.uploaded(1)
    run.keeper.close()
    overwrite(place, "data.pt", lambda content: None)
    with pytest.raises(ConfigError, match="none of the 1 can be used.*verify.*another sdar.run_dir"):
        start("second")
    with pytest.raises(ConfigError, match="none of the 1 can be used"):
        start("second")  # marked by now


def test_s3_that_cannot_be_reached_is_no_reason_to_begin_anew(start, s3, monkeypatch):
    monkeypatch.setattr("sdar_verl.storage.place.ATTEMPTS", 1)
    run = start("first")
    run.save(1)
    run.uploaded(1)
    run.keeper.close()
    s3.fail.append(("GET", 503, "ServiceUnavailable", 10**6))
    with pytest.raises(StorageUnreachable, match="ServiceUnavailable"):
        start("second")
    s3.fail[:] = [("GET", 400, "ExpiredToken", 10**6)]
    with pytest.raises(StorageUnreachable, match="ExpiredToken"):
        start("second")
    s3.fail[:] = [("GET .*rank_0", 403, "AccessDenied", 10**6), ("HEAD .*rank_0", 403, "AccessDenied", 10**6)]
    with pytest.raises(StorageError, match="403|AccessDenied") as refused:
        start("second")
    assert not isinstance(refused.value, StorageUnreachable), "the same again would end the same"
    s3.fail.clear()
    assert start("second").newest == 1


def test_broken_connections_are_got_over(start, s3):
    run = start("first")
    run.save(1, size=300_000)
    run.uploaded(1)
    s3.cut += ["GET .*rank_0", "GET .*rank_1"]
    second = start("second")
    assert second.newest == 1 and s3.cut == []
    assert content_of(second.root / "global_step_1") == content_of(run.root / "global_step_1")


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(start, s3, monkeypatch):
    run = start("first")
    run.save(1)
    run.uploaded(1)
    monkeypatch.setattr(host, "free_disk", lambda path: 100)
    s3.calls.clear()
    with pytest.raises(StorageError, match="needs .* GiB in .*make room"):
        start("second")
    assert not any("rank_0" in call for call in s3.calls)


FETCH = """
import resource, sys
from pathlib import Path
from sdar_verl.storage.restore import restore
from sdar_verl.storage.settings import CheckpointSettings

place, run, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
if limit:
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
settings = CheckpointSettings(place, 2, 4, None, 3, True, False)
restore(run, run / "checkpoints", settings, resume_mode="auto").write(run)
"""


def fetching(place, folder, limit=0):
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, str(place), str(folder), str(limit)], stderr=subprocess.PIPE, text=True
    )


def test_a_disk_that_fills_up_while_fetching(start, place, tmp_path):
    run = start("first")
    run.save(1, size=500_000)
    run.uploaded(1)
    process = fetching(place, tmp_path / "second", limit=200_000)
    assert process.wait(60) == 1 and "is the disk full?" in process.stderr.read()
    assert not (tmp_path / "second" / "manifest.json").exists() and complete_steps(tmp_path / "second") == []
    assert start("second").newest == 1


def test_a_fetch_that_is_killed_goes_on_where_it_was(start, s3, place, tmp_path):
    run = start("first")
    run.save(1, size=200_000)
    run.uploaded(1)
    rng = random.Random(1)
    for _ in range(4):
        process = fetching(place, tmp_path / "second")
        until = time.monotonic() + rng.uniform(0.5, 2.5)
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        process.kill()
        process.wait()
    second = start("second")
    assert second.newest == 1 and content_of(second.root / "global_step_1") == content_of(run.root / "global_step_1")
    assert [path.name for path in second.root.iterdir()] == ["global_step_1"]


def test_temporary_files_of_a_killed_fetch_neither_count_nor_come_along(start, monkeypatch):
    run = start("first")
    run.save(1)
    run.uploaded(1)
    entry = RemoteCheckpoints(run.settings.place).entries()[0]
    second = run.dir.parent / "second"
    strays = [
        second
        / "checkpoints"
        / f".restore-{entry.name}"
        / "checkpoint"
        / "actor"
        / "model_world_size_2_rank_0.pt.0a1b",
        second / f".restore-{entry.name}" / "records" / "panel.json.0a1b",
        second / ".restore-older" / "records" / "panel.json",
    ]
    for stray in strays:
        stray.parent.mkdir(parents=True)
        stray.write_bytes(b"x" * 10_000)
    again = start("second")
    assert content_of(again.root / "global_step_1") == content_of(run.root / "global_step_1")
    assert not [path for path in second.rglob("*") if path.name.startswith(".restore-") or path.name.endswith(".0a1b")]


def test_checkpoints_may_lie_on_another_file_system(start, monkeypatch):
    run = start("first")
    run.save(1)
    run.uploaded(1)
    replace = os.replace

    def between_two(source, target):
        if ("checkpoints" in str(source)) != ("checkpoints" in str(target)):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        replace(source, target)

    monkeypatch.setattr(os, "replace", between_two)
    second = start("second")
    assert second.newest == 1 and (second.dir / "metrics.jsonl").exists()


SAVE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from runs import Run
from sdar_verl.storage.place import Place

run = Run(Path(sys.argv[1]), Place.parse(sys.argv[2]), keep_local=2)
print("from", run.newest, flush=True)
step = run.newest or 0
if step:
    run.keeper.resumed(step)
while True:
    step += 1
    run.save(step, size=int(sys.argv[4]))
    print("saved", step, flush=True)
    import time; time.sleep(0.2)
"""


def test_whatever_happens_the_newest_sound_checkpoint_is_there(s3, place, tmp_path, start):
    """A run that is killed at random, on machines that are sometimes new, with S3 failing and files being harmed.

    The property: a start never goes back behind the newest step of which a sound checkpoint was left.
    """
    rng = random.Random(5)
    here, clock = os.path.dirname(__file__), 0
    sealed_before = 0
    for turn in range(5):
        machine = tmp_path / f"machine{clock}"
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE, str(machine), str(place), here, "20000"],
            stdout=subprocess.PIPE,
            text=True,
        )
        begun = process.stdout.readline().split()
        assert begun and begun[0] == "from", "the start failed"
        s3.delay = rng.choice([0, 0.05])
        s3.fail[:] = [("PUT", 500, "InternalError", rng.choice([0, 3]))]
        came_from = 0 if begun[1] == "None" else int(begun[1])
        assert came_from >= sealed_before, f"turn {turn}: went back to {came_from} behind {sealed_before}"
        for _ in range(rng.randint(1, 4)):
            process.stdout.readline()  # saved
        while turn == 0 and not RemoteCheckpoints(place).entries():
            assert process.poll() is None
            process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.5))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        s3.fail.clear()
        s3.delay = 0
        remote = [entry.step for entry in RemoteCheckpoints(place).entries()]
        if rng.random() < 0.5:  # the machine is gone
            clock += 1
            sealed_before = max(remote, default=0)
        else:
            left = complete_steps(machine / "checkpoints")
            sealed_before = max([*remote, *left], default=0)
        if len(remote) > 1 and rng.random() < 0.5 and sealed_before == remote[-1]:
            overwrite(place, f"step-{remote[-1]:010d}", lambda content: content[: len(content) // 2])
            local = complete_steps(tmp_path / f"machine{clock}" / "checkpoints")
            sealed_before = max([remote[-2], *local])
    assert sealed_before > 0 and start(f"machine{clock}").newest >= sealed_before


def test_the_order_is_that_of_steps_whatever_the_clocks_say(start, place, monkeypatch):
    run = start("first", keep=3)
    for step, year in ((9, 2031), (10, 1999)):
        clock = SimpleNamespace(now=lambda zone, year=year: datetime(year, 1, 1, tzinfo=zone))
        monkeypatch.setattr("sdar_verl.storage.keeper.datetime", clock)
        run.save(step)
        run.uploaded(step)
        os.utime(run.root / f"global_step_{step}", (0, 0) if step == 10 else None)
    remote = RemoteCheckpoints(place)
    assert [remote.read(entry).saved[:4] for entry in remote.entries()] == ["2031", "1999"]
    shutil.rmtree(run.root)
    record(run.dir, 10)
    assert start("second").newest == 10
    assert start("first").newest == 10, "the machine's own files are there, and the checkpoint is fetched"


def test_a_wrong_clock_is_said(start, s3):
    run = start("first")
    run.save(1)
    run.uploaded(1)
    s3.fail.append(("GET", 403, "RequestTimeTooSkewed", 10**6))
    with pytest.raises(StorageError, match="RequestTimeTooSkewed.*clock of this machine is wrong"):
        start("second")


@pytest.mark.parametrize(
    "text", ["s3://b", "s3://Bucket/x", "s3://bucket/", "s3://bucket/a b", "bucket/x", "s3://bucket/x#y"]
)
def test_addresses_that_name_no_place(text):
    with pytest.raises(StorageError, match="the form is s3://"):
        Place.parse(text)


def test_an_address_says_itself():
    text = "s3://bucket/runs/one?region=eu-west-1&endpoint=http://127.0.0.1:9000"
    assert str(Place.parse(text)) == text and Place.parse(text).key("manifests") == "runs/one/manifests"
