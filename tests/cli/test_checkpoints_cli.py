"""`sdar checkpoints` on a run's folder and on a real S3 interface."""

import sys
from pathlib import Path

import pytest
from aws_account import use_made_up_account

from sdar_verl.cli.main import main

sys.path.insert(0, str(Path(__file__).parents[1] / "storage"))
from runs import Run  # noqa: E402
from s3_service import content_of  # noqa: E402

from sdar_verl.storage.place import Place  # noqa: E402


@pytest.fixture(scope="module")
def run(moto_url, tmp_path_factory):
    """A run with steps 1 and 2 on the machine and in S3, where it can be changed by each test."""
    with pytest.MonkeyPatch.context() as patch:
        use_made_up_account(patch)
        place = Place("runs", "one", region="us-east-1", endpoint=moto_url)
        place.connect().create_bucket(Bucket="runs")
        found = Run(tmp_path_factory.mktemp("run"), place, keep=3)
        for step in (1, 2):
            found.save(step)
            found.uploaded(step)
        found.keeper.close()
        yield found


def sdar(capsys, *arguments):
    code = main(["checkpoints", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_from_listing_to_removing(run, capsys, tmp_path):
    code, said = sdar(capsys, "list", run.settings.s3)
    assert code == 0 and "goes on from step 2" in said and said.count("+00:00") == 2
    code, said = sdar(capsys, "list", run.dir)
    assert code == 0 and "goes on from step 2" in said

    code, said = sdar(capsys, "pull", run.settings.s3, tmp_path / "old", "--step", 1)
    assert code == 0 and "step 1; train with sdar.run_dir=" in said
    assert content_of(tmp_path / "old" / "checkpoints" / "global_step_1") == content_of(run.root / "global_step_1")
    assert (tmp_path / "old" / "metrics.jsonl").read_text().count("\n") == 2
    code, said = sdar(capsys, "pull", run.settings.s3, tmp_path / "old")
    assert code == 2 and "is not empty" in said
    assert sdar(capsys, "verify", run.settings.s3, "--deep") == (0, "step 1: all hashes fit\nstep 2: all hashes fit\n")

    client, place = run.settings.place.connect(), run.settings.place
    (broken,) = [
        found["Key"]
        for found in client.list_objects_v2(Bucket=place.bucket, Prefix=place.prefix)["Contents"]
        if "step-0000000002" in found["Key"] and "rank_1" in found["Key"]
    ]
    whole = client.get_object(Bucket=place.bucket, Key=broken)["Body"].read()
    client.put_object(Bucket=place.bucket, Key=broken, Body=whole[:-1] + b"?")
    assert sdar(capsys, "verify", run.settings.s3)[0] == 0, "sizes alone cannot tell"
    code, said = sdar(capsys, "verify", run.settings.s3, "--deep", "--mark")
    assert code == 1 and "step 2: DAMAGED: checkpoint/actor/model_world_size_2_rank_1.pt has other content" in said
    assert "damaged" in sdar(capsys, "list", run.settings.s3)[1]
    code, said = sdar(capsys, "pull", run.settings.s3, tmp_path / "newest")
    assert code == 0 and "step 1; train" in said
    code, said = sdar(capsys, "prune", run.settings.s3, "--keep", 1)
    assert code == 0 and "nothing to remove" in said, "the newest sound one, and what is newer, stay"
    client.put_object(Bucket=place.bucket, Key=broken, Body=whole)
    assert sdar(capsys, "verify", run.settings.s3, "--deep", "--mark")[0] == 0
    assert "goes on from step 2" in sdar(capsys, "list", run.settings.s3)[1]
    code, said = sdar(capsys, "prune", run.settings.s3, "--keep", 1)
    assert code == 0 and said == "removed 1: step 1\n"
    assert sdar(capsys, "prune", run.settings.s3, "--keep", 0)[0] == 2
    code, said = sdar(capsys, "pull", run.settings.s3, tmp_path / "none", "--step", 1)
    assert code == 2 and "holds no checkpoint of step 1; there: 2" in said
    assert sdar(capsys, "prune", run.settings.s3, "--all") == (0, "removed 1: step 2\n")
    assert "nothing to go on from" in sdar(capsys, "list", run.settings.s3)[1]


def test_a_folder_is_compared_with_its_manifests(run, capsys):
    assert sdar(capsys, "verify", run.dir) == (0, "step 1: all hashes fit\nstep 2: all hashes fit\n")
    shard = run.root / "global_step_1" / "actor" / "model_world_size_2_rank_0.pt"
    shard.write_bytes(shard.read_bytes()[:-1])
    code, said = sdar(capsys, "verify", run.dir)
    assert code == 1 and "step 1: DAMAGED: actor/model_world_size_2_rank_0.pt has" in said
    (run.root / "global_step_2" / "checkpoint.json").unlink()
    assert "without a manifest" in sdar(capsys, "verify", run.dir, "--step", 2)[1]


def test_what_is_no_place_is_said(capsys, tmp_path):
    assert sdar(capsys, "list", "s3://bucket")[0] == 2
    code, said = sdar(capsys, "list", tmp_path)
    assert code == 2 and "holds no checkpoints" in said
