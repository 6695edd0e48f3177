"""Runs a comparison, one run after the other; a second call goes on where the first was stopped."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from sdar_verl.checkpoints import complete_steps
from sdar_verl.compare import state
from sdar_verl.compare.composed import ArmPlan, compose_arms, overrides, run_dir
from sdar_verl.compare.state import RunState, SweepState, open_sweep
from sdar_verl.compare.sweep import Arm, Sweep
from sdar_verl.guards import EXIT_CODE as STOPPED_BY_GUARD
from sdar_verl.live import clock
from sdar_verl.quickstart import models
from sdar_verl.quickstart.plan import load_plan
from sdar_verl.report.run import METRICS, read_metrics
from sdar_verl.runs.command import training
from sdar_verl.runs.lab import make_games, preset_hash
from sdar_verl.runs.state import hold
from sdar_verl.runs.watch import Progress, RunFailed, Say, watch

Command = Callable[[Sequence[str], Path], list[str]]


def run_sweep(
    sweep: Sweep,
    out: Path,
    *,
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
        say: receives progress lines.
        stop_on_failure: do not begin another run after one has failed.
        command: from a run's overrides and folder to the command line that trains it.

    Returns:
        What became of every run.

    Raises:
        ConfigError: an arm's settings make no sense, or `out` is for something else; nothing was started.
        KeyboardInterrupt: stopped by the user, after the run was ended.
    """
    out = out.expanduser().absolute()
    plans = compose_arms(sweep, out)
    version = _lab_version(sweep)
    open_sweep(out, sweep, version)  # refuses before a lock is made in a folder of something else
    with hold(out, say) as lock:
        found = open_sweep(out, sweep, version)
        for arm, seed in sweep.runs:
            found.runs.setdefault(_key(out, arm, seed), RunState(arm.name, seed))
        found.save(out)
        if sweep.lab:
            say(make_games("alfworld", out / "games", sweep.lab.train_games, sweep.lab.panel, sweep.lab.seed))
        for number, (arm, seed) in enumerate(sweep.runs, start=1):
            own = found.runs[_key(out, arm, seed)]
            if own.done:
                say(f"{arm.name}, seed {seed}: {own.status} before, kept")
                continue
            say(f"run {number} of {len(sweep.runs)}: {arm.name}, seed {seed}{_left(sweep, found, out)}")
            _train(sweep, out, arm, seed, plans[arm.name], own, say=say, command=command, lock=lock)
            found.save(out)
            if own.status == "failed" and stop_on_failure:
                break
    return found


def _train(
    sweep: Sweep,
    out: Path,
    arm: Arm,
    seed: int,
    plan: ArmPlan,
    own: RunState,
    *,
    say: Say,
    command: Command,
    lock: int,
) -> None:
    """One run; sets the state's status, seconds and reason."""

    def tell(line: str) -> None:
        say(f"{arm.name}, seed {seed}: {line}")

    def first_estimate(progress: Progress, waited: float) -> int:
        steps, tests = progress.seconds("step"), progress.seconds("testing")
        expected = waited + plan.steps * steps[-1] + plan.steps // plan.test_freq * (tests[-1] if tests else 0.0)
        tell(f"such a run takes about {clock(expected)} here")
        return plan.steps

    folder = run_dir(out, arm, seed)
    if _complete(folder, plan.steps):  # only the note of its end was lost
        own.status, own.reason = "finished", ""
        return tell("was complete, kept")
    checkpoints = complete_steps(folder / "checkpoints")
    if not checkpoints:
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted call left
    after = checkpoints[-1] if checkpoints else None
    state.write_arm(folder, arm, seed, plan.changes)
    where = f"goes on from step {after}" if checkpoints else f"{plan.steps} steps"
    tell(f"{where}, log in {folder / 'log.txt'}")
    arguments, began = command(overrides(sweep, out, arm, seed), folder), time.monotonic()
    try:
        watch(
            arguments,
            folder,
            plan.steps,
            tell,
            review=None if checkpoints else first_estimate,
            after=after,
            held=(lock,),
        )
        own.status, own.reason = "finished", ""
    except RunFailed as failure:
        own.status = "stopped" if failure.status == STOPPED_BY_GUARD else "failed"
        own.reason = "a guard stopped it" if own.status == "stopped" else str(failure).splitlines()[0]
        tell(own.reason if own.status == "stopped" else str(failure))
    own.seconds = time.monotonic() - began if after is None else None


def _complete(folder: Path, steps: int) -> bool:
    """Whether the last step, with its evaluation, has been written."""
    if not (folder / METRICS).is_file():
        return False
    return "val/success_rate" in read_metrics(folder / METRICS).get(steps, {})


def _left(sweep: Sweep, found: SweepState, out: Path) -> str:
    """How long the rest takes, from what finished runs took: those of the same arm, else of any."""
    measured: dict[str, list[float]] = {}
    for own in found.runs.values():
        if own.status == "finished" and own.seconds:
            measured.setdefault(own.arm, []).append(own.seconds)
    if not measured:
        return ""
    every = fmean(seconds for arm in measured.values() for seconds in arm)
    waiting = [arm for arm, seed in sweep.runs if not found.runs[_key(out, arm, seed)].done]
    left = sum(fmean(measured.get(arm.name, [every])) for arm in waiting)
    return f"; about {clock(left)} left for {len(waiting)} run{'s' if len(waiting) > 1 else ''}"


def _key(out: Path, arm: Arm, seed: int) -> str:
    return run_dir(out, arm, seed).relative_to(out).as_posix()


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
