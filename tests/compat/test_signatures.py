"""verl's internals are as `sdar_verl.compat` expects them; another release fails here, by name, and not in a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = Path(__file__).with_name("verl_probe.py")


@pytest.fixture(scope="module")
def problems() -> dict[str, list[str]]:
    """The probe's findings; the CPU classes can only be imported in a process that chose the CPU platform."""
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(PROBE)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"something that compat imports is not there:\n{done.stderr[-3000:]}"
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("check", ["overrides", "called", "attributes", "order", "platform", "dispatch"])
def test_verl_is_as_compat_expects(problems, check):
    assert problems[check] == []
