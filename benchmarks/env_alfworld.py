"""ALFWorld engines side by side: ``python benchmarks/env_alfworld.py``.

Plays the same games with the same commands in the stock and in the fast engine, in one process on one core, and
prints CPU time per load, reset and step with their ratios, and of an episode of so many steps, the first of its game in
the process or a further one (of a group, say); the transcripts are compared on the way. Then plays the games through
the worker pool. Without ``--data-root`` it generates its games into a folder that is removed again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from sdar_envs import registry
from sdar_envs.alfworld.engine import Engine, make_engine
from sdar_envs.alfworld.generate import generate_games
from sdar_envs.base import TaskRef
from sdar_envs.pool import EnvPool

CALLS = ("load", "reset", "step", "load again")
EPISODES = {"episode": "load", "episode again": "load again"}  # and how it begins; then a reset and its steps


class Clock:
    """CPU seconds of single calls by engine and kind of call."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], list[float]] = defaultdict(list)

    def time(self, engine: str, call: str, function: Callable[..., Any], *arguments: Any) -> Any:
        start = time.process_time()
        result = function(*arguments)
        self.seconds[engine, call].append(time.process_time() - start)
        return result

    def mean(self, engine: str, call: str) -> float:
        return statistics.fmean(self.seconds[engine, call])


def compare(games: Sequence[TaskRef], steps: int, seed: int) -> Clock:
    """Play all games in both engines; raises `AssertionError` where their transcripts differ."""
    clock = Clock()
    engines: dict[str, Engine] = {kind: make_engine(kind) for kind in ("stock", "fast")}
    for game in games:
        rng = random.Random(f"{seed}/{game.id}")
        states = {}
        for kind, engine in engines.items():
            clock.time(kind, "load", engine.load, game.path)
            states[kind] = clock.time(kind, "reset", engine.reset)
        for _ in range(steps):
            assert states["stock"] == states["fast"], f"transcripts differ in {game.id}"
            command = rng.choice(states["stock"].admissible)
            states = {kind: clock.time(kind, "step", engine.step, command) for kind, engine in engines.items()}
        assert states["stock"] == states["fast"], f"transcripts differ in {game.id}"
        for kind, engine in engines.items():
            clock.time(kind, "load again", engine.load, game.path)
    return clock


async def through_the_pool(games: Sequence[TaskRef], steps: int, seed: int, workers: int) -> float:
    """Steps per second of wall time with eight episodes of each game in play at once, loads and resets included."""

    async def episode(pool: EnvPool, game: TaskRef, number: int) -> int:
        rng = random.Random(f"{seed}/{game.id}/{number}")
        async with pool.session() as session:
            _, info = await session.reset(game)
            for done in range(steps):
                *_, terminated, truncated, info = await session.step(rng.choice(info["admissible_actions"]))
                if terminated or truncated:
                    return done + 1
        return steps

    async with EnvPool("alfworld", {}, workers=workers, envs_per_worker=8) as pool:
        start = time.monotonic()
        played = await asyncio.gather(*(episode(pool, game, number) for game in games for number in range(8)))
        return sum(played) / (time.monotonic() - start)


def report(clock: Clock, steps: int) -> dict[str, dict[str, float]]:
    cost = {kind: {call: clock.mean(kind, call) * 1e3 for call in CALLS} for kind in ("stock", "fast")}
    for own in cost.values():
        own |= {name: own[begin] + own["reset"] + steps * own["step"] for name, begin in EPISODES.items()}
    result = {}
    print(f"{'CPU ms per call':<16}{'stock':>10}{'fast':>10}{'ratio':>8}")
    for call in (*CALLS, *EPISODES):
        stock, fast = cost["stock"][call], cost["fast"][call]
        result[call] = {"stock_ms": stock, "fast_ms": fast, "ratio": stock / fast}
        print(f"{call:<16}{stock:>10.2f}{fast:>10.3f}{stock / fast:>7.1f}x")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", help="folder with split folders; generated games by default")
    parser.add_argument("--split", default="train")
    parser.add_argument("--games", type=int, default=12)
    parser.add_argument("--steps", type=int, default=30, help="steps per game")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the pool; 0 leaves the pool out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="also write the numbers to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.data_root is None:
            games = generate_games(folder, args.split, args.games, args.seed)
        else:
            games = registry.get("alfworld").tasks({"data_root": args.data_root}, args.split)
            games = random.Random(args.seed).sample(games, min(args.games, len(games)))
        print(f"{len(games)} games, {args.steps} steps each, transcripts compared")
        numbers: dict[str, Any] = {"games": len(games), "steps": args.steps}
        numbers |= report(compare(games, args.steps, args.seed), args.steps)
        if args.workers:
            rate = asyncio.run(through_the_pool(games, args.steps, args.seed, args.workers))
            numbers["pool_steps_per_second"] = {"workers": args.workers, "rate": rate}
            print(f"pool: {rate:.0f} steps/s of wall time with {args.workers} workers, loads and resets included")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(numbers, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
