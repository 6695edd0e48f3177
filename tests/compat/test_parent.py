"""A server goes with the process that started it, whatever ends that."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from sdar_verl.compat.parent import PARENT

CHILD = """
import os, time
from sdar_verl.compat import parent
parent.end_with_it()
print(os.getpid(), parent.PARENT in os.environ, flush=True)
time.sleep(600)
"""
STARTER = f"""
import os, subprocess, sys
os.environ[{PARENT!r}] = str(os.getpid())
subprocess.Popen([sys.executable, "-c", {CHILD!r}]).wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_it_ends_when_its_parent_is_killed():
    with subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True) as starter:
        pid, handed_on = starter.stdout.readline().split()
        child = psutil.Process(int(pid))
        starter.kill()
        child.wait(60)
    assert handed_on == "False", "its own children have another parent"


def test_it_does_not_start_under_another_parent():
    environment = {**os.environ, PARENT: str(os.getppid())}
    found = subprocess.run([sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, timeout=60)
    assert found.returncode == 1 and "is gone" in found.stderr


def test_it_starts_by_itself_where_nobody_is_named():
    environment = {name: value for name, value in os.environ.items() if name != PARENT}
    command = [sys.executable, "-c", CHILD.replace("600", "0")]
    assert subprocess.run(command, env=environment, capture_output=True, timeout=60).returncode == 0


def test_the_teacher_server_asks_for_it_before_it_loads_anything():
    command = [sys.executable, "-m", "sdar_verl.compat.vllm_server", "no-such-model"]
    environment = {**os.environ, PARENT: str(os.getppid())}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert found.returncode == 1 and "is gone" in found.stderr
