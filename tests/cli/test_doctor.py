import argparse
import json
import shutil
import socket
from importlib import metadata

import pytest
from sdar_envs.alfworld.games import TASK_TYPES

from sdar_verl.cli import checks, doctor
from sdar_verl.cli.checks import Check


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    doctor.add_parser(parser.add_subparsers())
    args = parser.parse_args(["doctor", *map(str, arguments)])
    return args.func(args)


@pytest.fixture
def games(tmp_path):
    """A split folder with one game of each type that the index accepts."""
    for kind in TASK_TYPES:
        folder = tmp_path / "data" / "train" / f"{kind}-Mug-None-Shelf-1" / "trial_1"
        folder.mkdir(parents=True)
        (folder / "traj_data.json").write_text(json.dumps({"task_type": kind}))
        game = {"pddl_domain": "d", "grammar": "g", "pddl_problem": "p", "solvable": True}
        (folder / "game.tw-pddl").write_text(json.dumps(game))
    return tmp_path / "data"


def test_this_installation_is_the_supported_one():
    found = [checks.check_python(), *checks.check_packages(), *checks.check_platform(), checks.check_torchvision()]
    assert {check.name for check in found} >= {"python", "package verl", "package ray", "platform"}
    assert [check for check in found if check.status == "fail"] == []


def test_a_wrong_or_absent_package_says_what_is_wanted():
    wrong = checks.check_package("pytest", "<1")
    assert wrong.status == "fail" and metadata.version("pytest") in wrong.detail and "pytest<1" in wrong.advice
    absent = checks.check_package("no-such-distribution-here", ">=1")
    assert absent.status == "fail" and "not installed" in absent.detail
    assert checks.check_package("pytest", ">=1").status == "ok"


def test_games_are_counted_and_broken_ones_listed(games):
    (check,) = checks.check_data(str(games), ["train"])
    assert check.status == "ok" and "6 games" in check.detail
    shutil.rmtree(games / "train" / f"{TASK_TYPES[0]}-Mug-None-Shelf-1")
    (check,) = checks.check_data(str(games), ["train"])
    assert check.status == "warn" and TASK_TYPES[0] in check.advice
    (games / "train" / f"{TASK_TYPES[1]}-Mug-None-Shelf-1" / "trial_1" / "game.tw-pddl").write_text("{")
    good, bad = checks.check_data(str(games), ["valid_seen", "train"])
    assert good.status == "fail" and "valid_seen" in good.detail
    assert bad.status == "fail" and f"{TASK_TYPES[1]}-Mug-None-Shelf-1/trial_1" in bad.detail
    (unknown,) = checks.check_data(str(games), ["train"], "chess")
    assert unknown.status == "fail" and "alfworld" in unknown.detail


def test_skills_are_read_and_broken_ones_named(tmp_path):
    assert checks.check_skills("alfworld").status == "ok"
    assert "known: " in checks.check_skills("nothing").detail
    (tmp_path / "bad.md").write_text("no front matter")
    broken = checks.check_skills(str(tmp_path))
    assert broken.status == "fail" and "bad.md" in broken.detail


def test_limits_warn_first_and_fail_later(tmp_path):
    huge = 1e9
    for check in (checks.check_memory, lambda *a: checks.check_disk(str(tmp_path), *a), checks.check_shared_memory):
        assert check(0, 0).status == "ok" and check(0, 0).advice == ""
        assert check(0, huge).status == "warn"
        failed = check(huge, huge)
        assert failed.status == "fail" and failed.advice and "needed" in failed.detail
    assert checks.check_open_files(1, 1).status == "ok"
    assert checks.check_open_files(1, 1 << 40).status == "warn"


def test_ports_and_addresses():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        taken = checks.check_port(port)
        assert taken.status == "fail" and "in use" in taken.detail and "choose another" in taken.advice
        assert checks.check_address(f"127.0.0.1:{port}").status == "ok"
    assert checks.check_port(port).status == "ok"
    assert checks.check_address(f"127.0.0.1:{port}").status == "fail"
    assert "write it as host:port" in checks.check_address("somewhere").advice


def test_plugin_failures_are_told(monkeypatch):
    from sdar_verl import plugin
    from sdar_verl.errors import RegistrationError

    def refuse():
        raise RegistrationError("the trainer `sdar` is not registered")

    monkeypatch.setattr(plugin, "verify", refuse)
    check = checks.check_plugin()
    assert check.status == "fail" and "the trainer `sdar` is not registered" in check.detail and check.advice


def test_exit_code_and_json(monkeypatch, capsys, games):
    findings = [Check("one", "ok", "fine"), Check("two", "warn", "hm", "do this")]
    asked = {}
    monkeypatch.setattr(doctor, "run_checks", lambda **options: asked.update(options) or findings)
    assert run("--json", "--data", games, "--splits", "train,valid", "--start-ray") == 0
    assert json.loads(capsys.readouterr().out)["checks"][1]["advice"] == "do this"
    assert asked["splits"] == ["train", "valid"] and asked["start_ray"] == 6379 and asked["ray_address"] is None
    findings.append(Check("three", "fail", "bad\nsecond line", "repair it"))
    assert run("--start-ray", 7000) == 1
    printed = capsys.readouterr().out
    assert "FAIL  three" in printed and "second line" in printed and "-> repair it" in printed
    assert "1 ok, 1 warnings, 1 failures" in printed and asked["start_ray"] == 7000


@pytest.mark.slow
def test_the_whole_command_on_this_machine(capsys, games):
    code = run("--json", "--data", games, "--splits", "train", "--runs", games)
    report = json.loads(capsys.readouterr().out)
    status = {check["name"]: check["status"] for check in report["checks"]}
    assert status["plugin"] == "ok" and status["skills"] == "ok" and status["data alfworld/train"] == "ok"
    assert code == int("fail" in status.values()) and report["ok"] is (code == 0)
