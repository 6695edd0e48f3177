"""`sdar skills push|pull|diff` and the reading commands on a set in DynamoDB, over HTTP."""

import argparse

import pytest

from sdar_verl.cli import skills as cli
from sdar_verl.skills import Skill, open_store, shipped_path
from sdar_verl.skills.markdown import format_skill


def run(*words):
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["skills", *map(str, words)])
    return args.func(args)


def write(folder, **texts):
    folder.mkdir(exist_ok=True)
    for name, (text, version) in texts.items():
        skill = Skill(f"mine/{name}", text, "alfworld", None, version, "test")
        (folder / f"{name}.md").write_text(format_skill(skill))
    return f"{folder}/"


def test_a_set_goes_up_and_comes_down_the_same(address, tmp_path, capsys):
    assert run("push", "alfworld", address) == 0
    assert "release 1 with 10 skills (10 new, 0 changed, 0 removed)" in capsys.readouterr().out
    assert run("push", "alfworld", address) == 0
    assert "nothing to push, release 1 holds these 10 skills" in capsys.readouterr().out
    assert run("pull", address, tmp_path / "down") == 0
    assert open_store(tmp_path / "down").all() == open_store("alfworld").all()
    assert run("diff", "alfworld", address) == 0
    assert run("diff", address, f"{tmp_path}/down") == 0
    assert capsys.readouterr().out.count("0 new, 0 changed, 0 removed") == 2
    assert run("validate", address) == 0
    assert "6 of 6 task types" in capsys.readouterr().out
    assert run("show", "alfworld/heat", "--source", address) == 0
    assert open_store("alfworld").get("alfworld/heat").text in capsys.readouterr().out


def test_changes_are_shown_and_released(address, tmp_path, capsys):
    first = write(tmp_path / "a", one=("old words", 1), two=("stays", 1), three=("goes", 1))
    second = write(tmp_path / "b", one=("new words", 2), two=("stays", 1), four=("comes", 1))
    assert run("push", first, address, "--expect", 0) == 0
    capsys.readouterr()
    assert run("diff", address, second) == 1
    out = capsys.readouterr().out
    assert "-old words" in out and "+new words" in out and "-goes" in out and "+comes" in out and "stays" not in out
    assert "mine/one v2" in out and "no mine/three" in out and "1 new, 1 changed, 1 removed" in out
    assert run("push", second, address, "--expect", 0) == 1
    assert "at release 1, not 0" in capsys.readouterr().err
    assert run("push", second, address, "--expect", 1) == 0
    assert run("list", address, "--releases") == 0
    releases = [line.split() for line in capsys.readouterr().out.splitlines() if line.endswith(" skills")]
    assert [(line[0], line[2]) for line in releases] == [("1", "3"), ("2", "3")]
    old = f"{address}&release=1"
    assert run("list", old) == 0
    assert "mine/three" in capsys.readouterr().out
    assert run("push", second, old) == 1
    assert "makes the next release" in capsys.readouterr().err


def test_a_changed_text_without_a_new_version_is_refused(address, tmp_path, capsys):
    assert run("push", write(tmp_path / "a", one=("old words", 1)), address) == 0
    assert run("push", write(tmp_path / "a", one=("new words", 1)), address) == 1
    assert "raise the version" in capsys.readouterr().err


def test_pull_does_not_lose_other_files(address, tmp_path, capsys):
    mine = write(tmp_path / "a", one=("mine", 1))
    assert run("push", "alfworld_tiny", address) == 0
    assert run("pull", address, tmp_path / "a") == 1
    assert "holds other skills; compare them" in capsys.readouterr().err
    assert [s.text for s in open_store(mine).all()] == ["mine"]
    assert run("pull", address, tmp_path / "a", "--force") == 0
    assert open_store(mine).all() == open_store("alfworld_tiny").all()
    assert run("pull", address, tmp_path / "a") == 0  # the same again


def test_a_table_is_created_on_request(address, capsys):
    other = str(address).replace(address.table, f"{address.table}-new")
    assert run("push", "alfworld_tiny", other) == 1
    assert "--create-table" in capsys.readouterr().err
    for said in ("created the table", "nothing to push"):
        assert run("push", "alfworld_tiny", other, "--create-table") == 0
        assert said in capsys.readouterr().out


@pytest.mark.parametrize("words", [("list", "./nowhere", "--releases"), ("list", "--releases")])
def test_only_a_shared_set_has_releases(words, capsys):
    assert run(*words) == 1
    assert "dynamodb://TABLE/SET" in capsys.readouterr().err


def test_diff_tells_errors_from_differences(tmp_path, capsys):
    assert run("diff", "alfworld", "alfworld_tiny") == 1
    assert run("diff", "alfworld", f"{tmp_path}/none") == 2
    assert "no skill folder" in capsys.readouterr().err
    assert run("diff", "alfworld", f"{shipped_path('alfworld')}") == 0
