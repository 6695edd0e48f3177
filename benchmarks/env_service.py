"""Environments in process, as a service, and as one Ray actor each: ``python benchmarks/env_service.py``.

Many sessions play at once, each a step after the other without a pause (or with one, ``--think``); by turns on each
side, over the same tasks. Prints steps per second and the time of a step as the player sees it. ``--env echo`` costs
nothing itself and shows what the way there costs; ``--env alfworld`` plays generated games at random.
``--ray`` adds the Ray actors (starts Ray, and as many processes as sessions: mind the memory).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from sdar_envs import registry
from sdar_envs.base import StepInfo, TaskRef, TextEnv
from sdar_envs.pool import EnvPool
from sdar_envs.registry import EnvFamily

OBSERVATION = 4096  # characters of an echo
ACTIONS = 30  # admissible ones of an echo, as many as ALFWorld has


class EchoEnv(TextEnv):
    """Answers at once with as much text as a full page."""

    def reset(self, *, task: TaskRef, seed: int | None = None) -> tuple[str, StepInfo]:
        self._task, self._steps = task, 0
        return self._observe("reset")

    def step(self, action: str) -> tuple[str, float, bool, bool, StepInfo]:
        self._steps += 1
        observation, info = self._observe(action)
        return observation, 0.0, False, False, info

    def _observe(self, action: str) -> tuple[str, StepInfo]:
        actions = [f"go to place {number}" for number in range(ACTIONS)]
        info = StepInfo(
            task_id=self._task.id, task_type="echo", task_description="echo", admissible_actions=actions, won=False,
            step=self._steps,
        )  # fmt: skip
        return action.ljust(OBSERVATION, "."), info


class EchoFamily(EnvFamily):
    name = "echo"
    task_types = ("echo",)

    def tasks(self, config: Mapping[str, Any], split: str) -> list[TaskRef]:
        return [TaskRef(str(number), "echo", split) for number in range(64)]

    def make_env(self, config: Mapping[str, Any]) -> TextEnv:
        return EchoEnv()

    def make_format(self, config: Mapping[str, Any]):
        raise NotImplementedError("nobody is prompted here")


FAMILY = EchoFamily()


class RayPool:
    """One actor for each environment, as verl-agent has it; with as much of the pool's interface as is used here."""

    def __init__(self, env: str, config: Mapping[str, Any], sessions: int) -> None:
        import ray

        self._ray = ray
        paths = os.pathsep.join(os.path.abspath(entry or ".") for entry in sys.path)
        ray.init(num_cpus=os.cpu_count(), include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})

        @ray.remote(num_cpus=0.001)
        class Actor:
            def __init__(self, module: str) -> None:
                from importlib import import_module

                self._env = import_module(module).FAMILY.make_env(config)

            def reset(self, task: TaskRef):
                return self._env.reset(task=task)

            def step(self, action: str):
                return self._env.step(action)

        self._free = [Actor.remote(registry.module_of(env)) for _ in range(sessions)]

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Any]:
        actor = self._free.pop()

        class Session:
            async def reset(self, task: TaskRef):
                return await actor.reset.remote(task)

            async def step(self, action: str):
                return await actor.step.remote(action)

        yield Session()
        self._free.append(actor)

    async def close(self) -> None:
        self._ray.shutdown()


async def load(pool: Any, tasks: Sequence[TaskRef], sessions: int, steps: int, think: float, seed: int) -> dict:
    """All sessions at once; the clock starts when all have been reset."""
    ready, go = asyncio.Semaphore(0), asyncio.Event()
    took: list[float] = []

    async def play(number: int) -> None:
        rng = random.Random(f"{seed}/{number}")
        async with pool.session() as session:
            task = tasks[number // 8 % len(tasks)]  # groups of eight share one
            _, info = await session.reset(task)
            ready.release()
            await go.wait()
            for _ in range(steps):
                if think:
                    await asyncio.sleep(rng.expovariate(1 / think))
                start = time.perf_counter()
                *_, terminated, truncated, info = await session.step(rng.choice(info["admissible_actions"]))
                took.append(time.perf_counter() - start)
                if terminated or truncated:
                    _, info = await session.reset(task)

    players = [asyncio.ensure_future(play(number)) for number in range(sessions)]
    for _ in players:
        await ready.acquire()
    start, cpu = time.perf_counter(), time.process_time()
    go.set()
    await asyncio.gather(*players)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    cuts = statistics.quantiles(took, n=100)
    return {
        "steps": len(took),
        "steps_per_second": len(took) / seconds,
        "p50_ms": cuts[49] * 1e3,
        "p99_ms": cuts[98] * 1e3,
        "player_cpu_ms": cpu / len(took) * 1e3,
    }


@contextlib.contextmanager
def service(env: str, config: Mapping[str, Any], workers: int, envs: int):
    """A service process on this machine: its address and its process."""
    with tempfile.TemporaryDirectory() as folder:
        settings, logs = Path(folder) / "settings.json", Path(folder) / "log"
        settings.write_text(json.dumps(dict(config)))
        command = [sys.executable, "-m", "sdar_envs.service.cli", "serve", env, "--port", "0", "--config", settings]
        shape = ["--workers", str(workers), "--envs-per-worker", str(envs), "--module", "echo=env_service"]
        paths = os.pathsep.join(os.path.abspath(entry or ".") for entry in sys.path)
        with logs.open("w") as log:
            process = subprocess.Popen([*command, *shape], stderr=log, env={**os.environ, "PYTHONPATH": paths})
        try:
            while not (lines := [line for line in logs.read_text().splitlines() if '"serving"' in line]):
                if process.poll() is not None:
                    raise RuntimeError(f"the service did not start: {logs.read_text()}")
                time.sleep(0.1)
            yield f"ws://127.0.0.1:{json.loads(lines[0])['port']}", psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


def compare(env: str, config: Mapping[str, Any], args: argparse.Namespace) -> dict[str, list[dict]]:
    """The rounds of every side, played by turns."""
    from sdar_envs.service.client import RemoteEnvPool

    tasks = registry.get(env).tasks(config, "train")
    envs = math.ceil(args.sessions / args.workers)
    rounds: dict[str, list[dict]] = {}

    async def one(side: str, make: Callable[[], Any], seed: int) -> dict:
        pool = make()
        try:
            return await load(pool, tasks, args.sessions, args.steps, args.think / 1e3, seed)
        finally:
            await pool.close()

    with service(env, config, args.workers, envs) as (url, process):
        sides: dict[str, Callable[[], Any]] = {
            "in process": lambda: EnvPool(env, config, workers=args.workers, envs_per_worker=envs),
            "service": lambda: RemoteEnvPool(env, config, [url]),
        }
        if args.ray:
            sides["Ray actors"] = lambda: RayPool(env, config, args.sessions)
        for number in range(args.rounds):
            for side, make in sides.items():
                before = sum(process.cpu_times()[:2])
                result = asyncio.run(one(side, make, number))
                if side == "service":
                    result["service_cpu_ms"] = (sum(process.cpu_times()[:2]) - before) / result["steps"] * 1e3
                    result["service_mib"] = process.memory_info().rss / 2**20
                rounds.setdefault(side, []).append(result)
    return rounds


def report(rounds: Mapping[str, list[dict]]) -> None:
    def middle(side: str, name: str) -> float:
        return statistics.median(result[name] for result in rounds[side])

    print(f"{'':<12}{'steps/s':>9}{'(lowest to highest)':>22}{'p50 ms':>9}{'p99 ms':>9}{'player CPU ms a step':>23}")
    for side, results in rounds.items():
        rates = [result["steps_per_second"] for result in results]
        spread = f"({min(rates):.0f} to {max(rates):.0f})"
        print(
            f"{side:<12}{statistics.median(rates):>9.0f}{spread:>22}{middle(side, 'p50_ms'):>9.1f}"
            f"{middle(side, 'p99_ms'):>9.1f}{middle(side, 'player_cpu_ms'):>23.2f}"
        )
    cpu, mib = middle("service", "service_cpu_ms"), rounds["service"][-1]["service_mib"]
    print(f"the service's own process: {cpu:.2f} CPU ms a step and {mib:.0f} MiB, its workers not counted")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="echo", choices=["echo", "alfworld"])
    parser.add_argument("--sessions", type=int, default=256, help="at once")
    parser.add_argument("--steps", type=int, default=50, help="of each session and round")
    parser.add_argument("--workers", type=int, default=2, help="processes, in the pool and in the service")
    parser.add_argument("--think", type=float, default=0.0, help="mean pause before a step in ms, exponential")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true", help="also one Ray actor for each session")
    parser.add_argument("--json", help="also write the numbers to this file")
    args = parser.parse_args()
    registry.register("echo", "env_service")
    with tempfile.TemporaryDirectory() as folder:
        config: dict[str, Any] = {}
        if args.env == "alfworld":
            from sdar_envs.alfworld.generate import generate_games

            generate_games(folder, "train", 12, 0)
            config = {"data_root": folder}
        print(f"{args.env}: {args.sessions} sessions, {args.steps} steps each, {args.workers} workers", flush=True)
        rounds = compare(args.env, config, args)
    report(rounds)
    if args.json:
        Path(args.json).write_text(json.dumps({"arguments": vars(args), "rounds": rounds}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
