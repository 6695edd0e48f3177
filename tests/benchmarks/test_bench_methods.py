"""The benchmark of the methods: a real step of two of them on a few rows, and how its numbers are summed up."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "methods.py"), *arguments], capture_output=True, text=True, timeout=600
    )


@pytest.mark.slow
def test_two_methods_on_the_same_rows(tmp_path):
    done = run(
        *("--methods", "sdpo", "--rows", "4", "--repeats", "1", "--passes", "1"),
        *("--json", str(tmp_path / "out.json"), "--plot", str(tmp_path / "out.png")),
        *("--", "actor_rollout_ref.rollout.n=2", "env.alfworld.max_steps=3", "sdar.record.token_episodes=0"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "out.json").read_text())
    (grpo,), (sdpo,) = found["processes"]["grpo"], found["processes"]["sdpo"]
    assert grpo["rows"] == sdpo["rows"] == 6 and grpo["student_tokens"] == sdpo["student_tokens"]
    assert set(grpo["passes"][0]) == {"old", "ref", "advantage", "update"}
    assert set(sdpo["passes"][0]) == {"old", "ref", "teacher", "advantage", "update"}
    assert all(cost["cpu"] > 0 for result in (grpo, sdpo) for cost in result["passes"][0].values())
    assert sdpo["grad_norm"] > 0 and sdpo["teacher_prompt_tokens"] > sdpo["student_tokens"], "feedback was shown"
    assert all(peak > 0.8 * sdpo["loaded_mib"] for peak in sdpo["peak_mib"].values())
    summary = found["summary"]
    assert summary["grpo"]["cpu_ratio"] == 1.0
    totals = [sum(cost["cpu"] for cost in result["passes"][0].values()) for result in (sdpo, grpo)]
    assert summary["sdpo"]["cpu_ratio"] == pytest.approx(totals[0] / totals[1])
    assert summary["sdpo"]["cpu_ratio"] > 1.1, "it makes two forward passes more for every row"
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--methods", "sdar", "nonsense"], "invalid choice: 'nonsense'"),
        (["--vocab", "5"], "--vocab 5 is less than"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, said):
    done = run(*arguments)
    assert done.returncode != 0 and said in done.stderr
