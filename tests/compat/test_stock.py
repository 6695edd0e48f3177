"""Starting verl: a Ray that comes up too late on a busy machine is started again, and any other failure is not."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress

import psutil
import pytest
from omegaconf import OmegaConf

from sdar_verl.compat import stock

SLOW = Exception("The current node timed out during startup. This could happen because some of the raylet failed to")


@pytest.fixture
def verl(monkeypatch):
    """verl's `run_ppo` in a play: it starts a process, then raises what it is told or returns; the processes."""
    main_ppo = pytest.importorskip("verl.trainer.main_ppo")
    started, ends = [], []

    def run_ppo(config, task_runner_class):
        started.append(psutil.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        if error := ends.pop(0):
            raise error

    monkeypatch.setattr(main_ppo, "run_ppo", run_ppo)
    yield started, ends
    for process in started:
        with suppress(psutil.NoSuchProcess):
            process.kill()
            process.wait()


def test_a_start_that_was_too_slow_is_done_again_with_nothing_left_of_it(verl, capsys):
    started, ends = verl
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    ends.extend([SLOW, SLOW, None])
    try:
        stock.run_ppo(OmegaConf.create())
        assert other.poll() is None, "what was there before is none of Ray's"
    finally:
        other.kill()
        other.wait()
    assert [process.is_running() for process in started] == [False, False, True]
    assert capsys.readouterr().out.count("starting it again") == 2


def test_three_times_too_slow_is_an_error(verl):
    started, ends = verl
    ends.extend([SLOW] * stock.RAY_STARTS)
    with pytest.raises(Exception, match="timed out during startup"):
        stock.run_ppo(OmegaConf.create())
    assert len(started) == stock.RAY_STARTS and ends == []


def test_any_other_failure_is_raised_at_once(verl):
    started, ends = verl
    ends.append(RuntimeError("no such task"))
    with pytest.raises(RuntimeError, match="no such task"):
        stock.run_ppo(OmegaConf.create())
    assert len(started) == 1
