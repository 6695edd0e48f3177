import argparse
import sys
from pathlib import Path

import pytest

from sdar_verl.cli import report

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from synthetic_runs import make_panel, make_run  # noqa: E402


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    report.add_parser(parser.add_subparsers())
    args = parser.parse_args(["report", *map(str, arguments)])
    return args.func(args)


def test_command_writes_the_page_and_says_where(tmp_path, capsys):
    folder = make_run(tmp_path / "run", make_panel(per_type=2), distil=True, steps=4, every=2)
    assert run(folder, "--out", tmp_path / "out", "--last-k", 2) == 0
    assert str(tmp_path / "out" / "report.html") in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def test_command_fails_with_the_reason(tmp_path, capsys):
    assert run(tmp_path / "none", "--out", tmp_path / "out") == 1
    assert "there is no run folder" in capsys.readouterr().err
    for bad in ("0", "-1", "x"):
        with pytest.raises(SystemExit):
            run(tmp_path, "--out", tmp_path, "--last-k", bad)
