"""The ALFWorld benchmark runs, and its episodes are made of its calls. Nothing here depends on how fast it is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "env_alfworld.py"


def test_an_episode_is_a_load_a_reset_and_its_steps(tmp_path):
    found = tmp_path / "numbers.json"
    words = ["--games", "2", "--steps", "3", "--workers", "1", "--json", str(found)]
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    numbers = json.loads(found.read_text())
    assert numbers["pool_steps_per_second"]["rate"] > 0 and "transcripts compared" in done.stdout
    for engine in ("stock_ms", "fast_ms"):
        for episode, begin in (("episode", "load"), ("episode again", "load again")):
            parts = numbers[begin][engine] + numbers["reset"][engine] + 3 * numbers["step"][engine]
            assert numbers[episode][engine] == pytest.approx(parts)
