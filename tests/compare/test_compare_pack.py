"""A comparison in one file: the same page as from its folder, nothing of the machine, and what it refuses."""

import io
import json
import tarfile

import pytest
from compare_runs import edit_manifest, make_comparison, make_panel

from sdar_verl.cli.main import main
from sdar_verl.compare.arms import load
from sdar_verl.compare.pack import pack, unpacked
from sdar_verl.guards import FILE as GUARDS
from sdar_verl.report.run import ReportError


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    ends = {"grpo": 0.4, "no gate": 0.7}
    found = make_comparison(
        tmp_path_factory.mktemp("pack") / "out", make_panel(per_type=5), ends=ends, seeds=2, steps=6, every=3
    )
    run = found / "runs/grpo/seed-1"
    (run / GUARDS).write_text(json.dumps({"guard": "entropy", "step": 3}) + "\n")
    (run / "log.txt").write_text("a secret of the machine\n")
    edit_manifest(run, **{"config.env.alfworld.data_root": str(found / "games")})
    return found


def test_the_page_of_an_archive_is_that_of_the_folder(out, tmp_path, capsys):
    archive = tmp_path / "own.tar.gz"
    assert main(["compare", "pack", str(out), "--out", str(archive)]) == 0
    assert main(["compare", "report", str(out), "--out", str(tmp_path / "a")]) == 0
    assert main(["compare", "report", str(archive), "--out", str(tmp_path / "b")]) == 0
    for name in ("compare.md", "evaluations.csv"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()
    assert "1 of 2 runs" in (tmp_path / "b/compare.md").read_text(), "what a guard found is lost"
    assert (tmp_path / "b/compare.html").is_file() and f"archive: {archive}" in capsys.readouterr().out


def test_an_archive_has_outcomes_and_no_transcripts_logs_or_places(out, tmp_path):
    size = pack(out, tmp_path / "own.tar.gz")
    assert size == (tmp_path / "own.tar.gz").stat().st_size
    with tarfile.open(tmp_path / "own.tar.gz") as tar:
        texts = {member.name: tar.extractfile(member).read().decode() for member in tar}
    assert not [name for name in texts if name.endswith(("log.txt", "train.jsonl", "tokens.jsonl"))]
    lines = [json.loads(line) for line in texts["runs/grpo/seed-1/episodes/val.jsonl"].splitlines()]
    whole = [json.loads(line) for line in (out / "runs/grpo/seed-1/episodes/val.jsonl").read_text().splitlines()]
    assert lines == [line | {"turns": []} for line in whole] and any(line["turns"] for line in whole)
    assert not [name for name, text in texts.items() if str(out) in text]
    assert json.loads(texts["runs/grpo/seed-1/manifest.json"])["config"]["env"]["alfworld"]["data_root"] == "./games"


def test_where_a_package_lay_is_not_told_whoever_packs(out, tmp_path):
    manifest = out / "runs/grpo/seed-1/manifest.json"
    found = json.loads(manifest.read_text())
    found["config"]["actor_rollout_ref"] = {"model": {"path": "/home/me/env/site-packages/sdar_verl/lab/weights"}}
    found["config"]["ray_kwargs"] = {"wanted": "uses=/home/me/env/site-packages"}
    before = manifest.read_text()
    manifest.write_text(json.dumps(found))
    try:
        pack(out, tmp_path / "own.tar.gz")
    finally:
        manifest.write_text(before)
    with tarfile.open(tmp_path / "own.tar.gz") as tar:
        text = tar.extractfile("runs/grpo/seed-1/manifest.json").read().decode()
    assert "/home/me" not in text and json.loads(text)["config"]["actor_rollout_ref"] == {
        "model": {"path": "./sdar_verl/lab/weights"}
    }


def test_the_same_runs_make_the_same_bytes(out, tmp_path):
    pack(out, tmp_path / "a.tar.gz")
    pack(out, tmp_path / "b.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


def test_archives_and_folders_stand_side_by_side(out, tmp_path):
    pack(out, tmp_path / "own.tar.gz")
    other = make_comparison(tmp_path / "other", make_panel(per_type=5), ends={"sdar": 0.5}, seeds=2, steps=6, every=3)
    with unpacked([str(tmp_path / "own.tar.gz"), str(other)]) as targets:
        assert [arm.name for arm in load(targets).arms] == ["grpo", "no gate", "sdar"]
    assert targets[1] == str(other) and other.is_dir()


def test_what_is_no_comparison_is_refused(out, tmp_path, capsys):
    assert main(["compare", "pack", str(tmp_path)]) == 1
    assert "it is no folder of `sdar compare run`" in capsys.readouterr().err
    assert main(["compare", "pack", str(out), "--out", str(tmp_path / "own.zip")]) == 1
    assert "must end in .tar.gz" in capsys.readouterr().err
    (tmp_path / "own.tar.gz").write_bytes(b"no archive")
    assert main(["compare", "report", str(tmp_path / "own.tar.gz"), "--out", str(tmp_path / "page")]) == 1
    assert "no archive of `sdar compare pack`" in capsys.readouterr().err
    assert main(["compare", "report", str(tmp_path / "own.tar.gz")]) == 1
    assert "--out DIR" in capsys.readouterr().err


def test_an_archive_cannot_write_outside_its_place(tmp_path):
    with tarfile.open(tmp_path / "bad.tar.gz", "w:gz") as tar:
        entry = tarfile.TarInfo("../outside")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"evil"))
    with pytest.raises(ReportError, match="no archive of"), unpacked([str(tmp_path / "bad.tar.gz")]):
        pass
