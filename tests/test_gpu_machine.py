"""Two runs on one machine's GPUs are refused, and so is one that wants more of them than there are."""

import subprocess
import sys

import pytest
import torch

from sdar_verl.errors import ConfigError
from sdar_verl.gpu_machine import alone, require_gpus

HOLDER = """
import sys, time
from pathlib import Path
from sdar_verl.gpu_machine import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_run_is_refused_until_the_first_is_gone_however_it_went(tmp_path):
    lock = tmp_path / "lock"
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(ConfigError, match=r"another run is at work on this machine's GPUs .*container"),
            alone(lock),
        ):
            pass
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    for _ in range(2):
        with alone(lock):
            assert lock.exists()


def test_more_gpus_than_there_are():
    there = torch.cuda.device_count()
    require_gpus(there, "all of them")
    with pytest.raises(ConfigError, match=rf"one more take {there + 1} GPUs, and there are {there} here .*replicas"):
        require_gpus(there + 1, "one more")
