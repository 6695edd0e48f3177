import argparse

import pytest

from sdar_verl.cli import skills as cli
from sdar_verl.skills import Skill, open_store
from sdar_verl.skills.markdown import format_skill


def run(*words):
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["skills", *map(str, words)])
    return args.func(args)


def test_list_shows_every_shipped_skill(capsys):
    assert run("list") == 0
    out = capsys.readouterr().out
    for name in ("alfworld", "alfworld_tiny"):
        for skill in open_store(name).all():
            assert skill.id in out and skill.content_hash[:12] in out


def test_show_prints_the_text(capsys):
    assert run("show", "alfworld/heat") == 0
    assert open_store("alfworld").get("alfworld/heat").text in capsys.readouterr().out


def test_unknown_names_are_reported_with_the_known_ones(capsys):
    assert run("show", "alfworld/bake") == 1
    assert "known: alfworld/general-act" in capsys.readouterr().err
    assert run("list", "mine") == 1
    assert "known: alfworld, alfworld_tiny" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["alfworld", "alfworld_tiny"])
def test_shipped_sets_are_valid(name, capsys):
    assert run("validate", name) == 0
    assert "6 of 6 task types" in capsys.readouterr().out


def test_validate_reports_broken_files_and_missing_types(tmp_path, capsys):
    look = Skill("mine/look", "look", "alfworld", "look_at_obj_in_light", 1, "test")
    (tmp_path / "look.md").write_text(format_skill(look))
    assert run("validate", tmp_path) == 1
    assert "pick_and_place_simple" in capsys.readouterr().err
    assert run("validate", tmp_path, "--allow-missing") == 0
    assert "1 of 6 task types" in capsys.readouterr().out
    (tmp_path / "bad.md").write_text("hello")
    assert run("validate", tmp_path) == 1
    assert "bad.md: no front matter" in capsys.readouterr().err


def test_validate_refuses_unknown_environments(tmp_path, capsys):
    (tmp_path / "a.md").write_text(format_skill(Skill("a", "x", "moon", None, 1, "test")))
    assert run("validate", tmp_path) == 1
    assert "unknown environment 'moon'" in capsys.readouterr().err
