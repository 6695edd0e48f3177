"""What forks save at a run's start: ``python benchmarks/start_time.py``.

Starts the quickstart's SDAR run on a CPU with ``sdar.forked_workers`` and without, by turns, until the start model has
been evaluated on one task (Ray, FSDP2 actor, vLLM and environments all work by then), and stops it there. Prints
wall time, processor time and memory of all its processes. The memory is the proportional set size: a page that n
processes share counts 1/n for each.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import mean

import psutil

from sdar_verl.quickstart import models
from sdar_verl.runs import lab
from sdar_verl.runs.command import assignments, training

SIDES = ("forked", "anew")
Numbers = dict[str, float]


def measure(side: str, games: Path, run_dir: Path) -> Numbers:
    """One start; the run is stopped afterwards.

    Raises:
        RuntimeError: the run ended before it had evaluated anything; the message holds the end of its log.
    """
    settings = lab.settings("alfworld", models.tiny(), games, 1, 0) | {
        "sdar.run_dir": run_dir,
        "sdar.forked_workers": side == "forked",
        "trainer.total_training_steps": 1,
        "trainer.test_freq": 1,
    }
    run_dir.mkdir()
    log, metrics, began = run_dir / "log.txt", run_dir / "metrics.jsonl", time.monotonic()
    with log.open("wb") as output:
        run = subprocess.Popen(
            training(["platform=cpu", "method=sdar", "+lab=tiny", *assignments(settings)]),
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
    try:
        while not (metrics.is_file() and metrics.stat().st_size):
            if run.poll() is not None:
                raise RuntimeError(f"the run ended with status {run.returncode}: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        found = {"seconds": time.monotonic() - began, "cpu_seconds": 0.0, "memory_mib": 0.0, "processes": 0.0}
        for process in (own := psutil.Process(run.pid), *own.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                found["cpu_seconds"] += times.user + times.system + times.children_user + times.children_system
                found["memory_mib"] += process.memory_full_info().pss / 2**20
                found["processes"] += 1
        return found
    finally:
        began = time.monotonic()
        run.send_signal(signal.SIGINT)
        run.wait(180)
        print(f"{side}: started, and stopped in {time.monotonic() - began:.0f} s", flush=True)


def report(found: dict[str, list[Numbers]]) -> dict[str, Numbers]:
    numbers: dict[str, Numbers] = {}
    print(f"\n{'mean (lowest to highest)':<26}{'forked':>24}{'anew':>24}{'ratio':>8}")
    for name in found["forked"][0]:
        values = {side: [own[name] for own in found[side]] for side in SIDES}
        numbers[name] = {side: mean(values[side]) for side in SIDES}
        numbers[name]["ratio"] = numbers[name]["forked"] / numbers[name]["anew"]
        shown = [f"{mean(v):.0f} ({min(v):.0f} to {max(v):.0f})" for v in values.values()]
        print(f"{name:<26}{shown[0]:>24}{shown[1]:>24}{numbers[name]['ratio']:>8.2f}")
    return numbers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="starts of each side, by turns")
    parser.add_argument("--json", help="also write the numbers to this file")
    args = parser.parse_args()
    found: dict[str, list[Numbers]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory(prefix="sdar-bench-") as folder:
        games = Path(folder) / "games"
        lab.make_games("alfworld", games, 8, 1, 0)
        for repeat in range(args.repeats):
            for side in SIDES if repeat % 2 == 0 else SIDES[::-1]:
                found[side].append(measure(side, games, Path(folder) / f"{side}{repeat}"))
    numbers = report(found)
    if args.json:
        Path(args.json).write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
