"""What SDAR adds to a training step: ``python benchmarks/step_time.py``.

Trains the shipped tiny model through the real stack with GRPO and with SDAR by turns, from the same weights on the same
games, at learning rate 0: the policy stays the same, so both have the same rollouts to pay for. Prints the seconds of
each phase and the ratio of the steps, also per row. The first step of every run holds one-time work and is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from sdar_verl.quickstart import models
from sdar_verl.quickstart.plan import command, load_plan
from sdar_verl.runs.lab import make_games
from sdar_verl.runs.watch import watch

METHODS = ("grpo", "sdar")
PHASES = ("gen", "old_log_prob", "teacher", "update_actor", "update_weights", "step")


def measure(steps: int, repeats: int, seed: int, folder: Path, overrides: list[str]) -> dict[str, list[dict]]:
    """The metrics of every counted step by method."""
    plan = replace(load_plan("tiny"), steps=steps + 1, panel=0)
    make_games("alfworld", folder / "games", 64, 1, seed)
    found: dict[str, list[dict]] = defaultdict(list)
    for repeat in range(repeats):
        for method in METHODS if repeat % 2 == 0 else METHODS[::-1]:
            run_dir = folder / f"{method}{repeat}"
            line = command(
                plan, method, preset="tiny", model=models.tiny(), games=folder / "games", run_dir=run_dir, seed=repeat
            )
            line += ["actor_rollout_ref.actor.optim.lr=0", "trainer.val_before_train=false", *overrides]
            progress = watch(line, run_dir, plan.steps, lambda text, name=run_dir.name: print(f"{name}: {text}"))
            found[method] += [data for step, data in sorted(progress.metrics.items()) if step > 1]
    return found


def report(found: dict[str, list[dict]]) -> dict[str, dict[str, float]]:
    numbers: dict[str, dict[str, float]] = {}
    print(f"\n{'mean seconds':<16}{'GRPO':>10}{'SDAR':>10}{'ratio':>8}")
    for phase in PHASES:
        seconds = {method: [data.get(f"timing_s/{phase}", 0.0) for data in found[method]] for method in METHODS}
        mean = {method: statistics.mean(values) for method, values in seconds.items()}
        numbers[phase] = {**mean, "ratio": mean["sdar"] / mean["grpo"] if mean["grpo"] else float("nan")}
        print(f"{phase:<16}{mean['grpo']:>10.2f}{mean['sdar']:>10.2f}{numbers[phase]['ratio']:>8.2f}")
    tokens = {m: [data["perf/total_num_tokens"] for data in found[m]] for m in METHODS}
    rate = {m: [d["timing_s/step"] / n * 1e3 for d, n in zip(found[m], tokens[m], strict=True)] for m in METHODS}
    mean = {m: statistics.mean(rate[m]) for m in METHODS}
    spread = {m: statistics.stdev(rate[m]) if len(rate[m]) > 1 else float("nan") for m in METHODS}
    numbers["ms_per_token"] = {**mean, "ratio": mean["sdar"] / mean["grpo"]}
    print(f"{'ms per token':<16}{mean['grpo']:>10.4f}{mean['sdar']:>10.4f}{mean['sdar'] / mean['grpo']:>8.2f}")
    print(f"{'  its deviation':<16}{spread['grpo']:>10.4f}{spread['sdar']:>10.4f}")
    print(f"{'tokens a step':<16}{statistics.mean(tokens['grpo']):>10.0f}{statistics.mean(tokens['sdar']):>10.0f}")
    return numbers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4, help="counted steps of each run")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each method, by turns")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="also write the numbers to this file")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for all runs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sdar-bench-") as folder:
        numbers = report(measure(args.steps, args.repeats, args.seed, Path(folder), args.overrides))
    if args.json:
        Path(args.json).write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
