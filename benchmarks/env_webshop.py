"""WebShop on one core: ``python benchmarks/env_webshop.py``.

Opens a catalogue in fresh processes (cold, then with all cached), plays random visits and the scripted shopper in one
process, and times searches on their own. Steps a second count CPU time of this process, so that other work on the
machine matters less; the other times are by the clock. Without ``--data-root`` it generates its catalogue into a
folder that is removed again.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sdar_envs import registry
from sdar_envs.base import EpisodeView, TaskRef
from sdar_envs.webshop.expert import Expert, read_wish
from sdar_envs.webshop.generate import generate_catalogue
from sdar_envs.webshop.shop import open_shop
from sdar_envs.webshop.tasks import read_task_id

FAMILY = registry.get("webshop")
_START = """
import json, sys, time
began = time.perf_counter()
from sdar_envs import registry
family, config = registry.get("webshop"), json.loads(sys.argv[1])
env = family.make_env(config)
env.reset(task=family.tasks(config, "train")[0])
env.step("search[cotton shirt]")
print(time.perf_counter() - began)
"""


def start_seconds(config: dict[str, Any]) -> float:
    """Seconds from the first import to the first results page, in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", _START, json.dumps(config)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def random_visits(config: dict[str, Any], tasks: list[TaskRef], steps: int, seed: int) -> float:
    """Steps a second of a visitor that clicks what it sees and searches for words of its tasks."""
    rng, env, over = random.Random(seed), FAMILY.make_env(config), True
    actions: list[str] = []
    words = [word for name in rng.sample(tasks, min(50, len(tasks))) for word in description(config, name).split()]
    began = time.process_time()
    for _ in range(steps):
        if over:
            env.reset(task=rng.choice(tasks))
            actions = []
        wish = f"search[{' '.join(rng.sample(words, 6))}]"
        action = rng.choice(actions) if actions and rng.random() < 0.85 else wish
        _, _, terminated, truncated, info = env.step(action)
        actions, over = info["admissible_actions"], terminated or truncated
    return steps / (time.process_time() - began)


def description(config: dict[str, Any], task: TaskRef) -> str:
    """What a task asks for."""
    kind, seed, shuffle_seed, index = read_task_id(task.id)
    return open_shop(str(config["data_root"]), config["cache_dir"]).goals(kind, seed, shuffle_seed)[index].text


def shopper(config: dict[str, Any], tasks: list[TaskRef], episodes: int, seed: int) -> dict[str, float]:
    """The scripted shopper's results, and steps a second of environment and shopper together."""
    env, player = FAMILY.make_env(config), Expert()
    won, scores, steps, began = 0, [], 0, time.process_time()
    for task in random.Random(seed).sample(tasks, min(episodes, len(tasks))):
        observation, info = env.reset(task=task)
        view = EpisodeView(info["task_description"], observation, info["admissible_actions"])
        over = False
        while not over:
            action = player.act(view)
            view.history.append((view.observation, action))
            view.observation, _, terminated, truncated, info = env.step(action)
            view.admissible_actions = info["admissible_actions"]
            over, steps = terminated or truncated, steps + 1
        won, scores = won + info["won"], [*scores, info["score"]]
    spent = time.process_time() - began
    return {"success": won / len(scores), "score": statistics.fmean(scores), "steps_per_second": steps / spent}


def search_milliseconds(config: dict[str, Any], tasks: list[TaskRef], queries: int, seed: int) -> dict[str, float]:
    """Milliseconds of one search that is not remembered: instructions without options, and with everything."""
    index = open_shop(str(config["data_root"]), config["cache_dir"]).prepared.index
    chosen = [description(config, task) for task in random.Random(seed).sample(tasks, min(queries, len(tasks)))]
    found = {}
    for name, texts in {"words": [read_wish(text).words for text in chosen], "whole": chosen}.items():
        times = []
        for text in texts:
            began = time.perf_counter()
            index.search(text.lower(), 50)
            times.append(1000 * (time.perf_counter() - began))
        cuts = statistics.quantiles(times, n=100)
        found |= {f"{name}_p50": cuts[49], f"{name}_p95": cuts[94], f"{name}_max": max(times)}
    return found


def own_mib() -> float:
    """Memory of this process that it shares with nobody, MiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-root", default=None, help="a catalogue (default: a generated one)")
    parser.add_argument("--products", type=int, default=1000, help="of the generated catalogue")
    parser.add_argument("--train-size", type=int, help="of env.webshop: large catalogues have millions")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="webshop-bench-") as scratch:
        root = args.data_root or str(generate_catalogue(Path(scratch) / "data", args.products, args.seed))
        config = {"data_root": root, "cache_dir": str(Path(scratch) / "cache"), "train_size": args.train_size}
        cold, warm = start_seconds(config), [start_seconds(config) for _ in range(3)]
        tasks = FAMILY.tasks(config, "train")
        numbers: dict[str, Any] = {"goals": len(tasks), "start_cold_s": cold, "start_warm_s": min(warm)}
        numbers["products"] = len(open_shop(root, config["cache_dir"]).prepared.products)
        rates = [random_visits(config, tasks, args.steps // 4, args.seed + part) for part in range(4)]
        numbers |= {"steps_per_second": statistics.fmean(rates), "slowest_quarter": min(rates)}
        numbers |= {f"shopper_{key}": value for key, value in shopper(config, tasks, args.episodes, args.seed).items()}
        numbers |= {f"search_ms_{k}": v for k, v in search_milliseconds(config, tasks, args.queries, args.seed).items()}
        numbers["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # mapped files included
        numbers["own_mib"] = own_mib()
    if args.json:
        print(json.dumps(numbers))
    else:
        print("\n".join(f"{name:24} {value:12.3f}" for name, value in numbers.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
