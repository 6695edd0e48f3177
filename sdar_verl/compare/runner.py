"""Runs a comparison; a second call goes on where the first was stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from queue import Queue

from sdar_verl.compare.composed import compose_arms
from sdar_verl.compare.shares import shares
from sdar_verl.compare.state import RunState, SweepState, open_sweep
from sdar_verl.compare.sweep import Arm, Sweep
from sdar_verl.compare.work import Command, Work, key_of
from sdar_verl.quickstart import models
from sdar_verl.quickstart.plan import load_plan
from sdar_verl.runs.command import training
from sdar_verl.runs.lab import make_games, preset_hash
from sdar_verl.runs.state import hold
from sdar_verl.runs.watch import Say


def run_sweep(
    sweep: Sweep,
    out: Path,
    *,
    jobs: int = 1,
    say: Say = print,
    stop_on_failure: bool = False,
    command: Command = lambda lines, run: training(lines),
) -> SweepState:
    """Train every arm with every seed.

    Finished runs are kept; an unfinished one goes on from its last checkpoint, or from its beginning where it has none;
    a failed one is tried again. Arms and seeds may be added by a later call.

    Args:
        sweep: what to run.
        out: folder of the runs, and of the games of the lab.
        jobs: runs side by side, each on its share of this machine's cores; more than one on a CPU only.
        say: receives progress lines.
        stop_on_failure: do not begin another run after one has failed.
        command: from a run's overrides and folder to the command line that trains it.

    Returns:
        What became of every run.

    Raises:
        ConfigError: an arm's settings make no sense, `out` is for something else, or the machine is too small for so
            many jobs; nothing was started.
        KeyboardInterrupt: stopped by the user, after the runs were ended.
    """
    out = out.expanduser().absolute()
    plans = compose_arms(sweep, out)
    parts = shares(jobs, plans)
    version = _lab_version(sweep)
    open_sweep(out, sweep, version)  # refuses before a lock is made in a folder of something else
    with hold(out, say) as lock:
        found = open_sweep(out, sweep, version)
        for arm, seed in sweep.runs:
            found.runs.setdefault(key_of(out, arm, seed), RunState(arm.name, seed))
        found.save(out)
        if sweep.lab:
            say(make_games("alfworld", out / "games", sweep.lab.train_games, sweep.lab.panel, sweep.lab.seed))
        waiting: Queue[tuple[int, Arm, int]] = Queue()
        for number, (arm, seed) in enumerate(sweep.runs, start=1):
            own = found.runs[key_of(out, arm, seed)]
            if own.done:
                say(f"{arm.name}, seed {seed}: {own.status} before, kept")
            else:
                waiting.put((number, arm, seed))
        at_work = Work(sweep, out, plans, found, waiting, say, command, lock, jobs, stop_on_failure)
        with ThreadPoolExecutor(jobs) as pool:
            try:
                lanes = [pool.submit(at_work.take, cores) for cores in parts]
                for lane in as_completed(lanes):
                    lane.result()
            except BaseException:
                at_work.ended.set()
                raise
    return found


def _lab_version(sweep: Sweep) -> str | None:
    """A hash of what the lab brings along: start weights, preset and plan."""
    if sweep.lab is None:
        return None
    weights = hashlib.sha256((models.tiny() / "model.safetensors").read_bytes()).hexdigest()
    content = [weights, preset_hash("tiny"), asdict(load_plan("tiny"))]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def failures(found: SweepState, arms: Sequence[str]) -> list[str]:
    """A line for each run of these arms that did not end as it should."""
    failed = [own for own in found.runs.values() if own.status == "failed" and own.arm in arms]
    return [f"{own.arm}, seed {own.seed}: {own.reason}" for own in failed]
