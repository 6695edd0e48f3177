"""The table of starts; a start itself is what every real run of the tests makes."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def start_time():
    script = Path(__file__).parents[2] / "benchmarks" / "start_time.py"
    spec = importlib.util.spec_from_file_location("start_time", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_ratio_is_of_the_means(start_time, capsys):
    forked = [{"seconds": 10.0, "cpu_seconds": 5.0}, {"seconds": 20.0, "cpu_seconds": 5.0}]
    anew = [{"seconds": 40.0, "cpu_seconds": 20.0}, {"seconds": 20.0, "cpu_seconds": 20.0}]
    numbers = start_time.report({"forked": forked, "anew": anew})
    assert numbers["seconds"] == {"forked": 15.0, "anew": 30.0, "ratio": 0.5}
    assert numbers["cpu_seconds"]["ratio"] == 0.25
    assert "15 (10 to 20)" in capsys.readouterr().out


def test_a_run_that_cannot_start_is_said(start_time, tmp_path, monkeypatch):
    monkeypatch.setattr(start_time, "training", lambda lines: ["sh", "-c", "echo the reason; exit 3"])
    with pytest.raises(RuntimeError, match="ended with status 3: the reason"):
        start_time.measure("forked", tmp_path / "games", tmp_path / "run")
