"""The runs of a comparison, one after the other or some side by side."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from statistics import fmean
from threading import Event, Lock

from sdar_verl.checkpoints import complete_steps
from sdar_verl.compare import state
from sdar_verl.compare.composed import ArmPlan, overrides, run_dir
from sdar_verl.compare.shares import Cores
from sdar_verl.compare.state import SweepState
from sdar_verl.compare.sweep import Arm, Sweep
from sdar_verl.guards import EXIT_CODE as STOPPED_BY_GUARD
from sdar_verl.live import clock
from sdar_verl.report.run import METRICS, read_metrics
from sdar_verl.runs.watch import Progress, RunFailed, Say, Stopped, watch

Command = Callable[[Sequence[str], Path], list[str]]


@dataclass
class Work:
    """Runs that wait, taken by one thread for each share of the machine."""

    sweep: Sweep
    out: Path
    plans: Mapping[str, ArmPlan]
    found: SweepState
    waiting: Queue[tuple[int, Arm, int]]
    say: Say
    command: Command
    lock: int
    jobs: int
    stop_on_failure: bool
    ended: Event = field(default_factory=Event)  # runs at work are stopped
    full: Event = field(default_factory=Event)  # they come to their end, others do not begin
    noting: Lock = field(default_factory=Lock)

    def take(self, cores: Cores | None) -> None:
        """Train one waiting run after the other on these cores; None for all."""
        while True:
            with self.noting:
                if self.ended.is_set() or self.full.is_set():
                    return
                try:
                    number, arm, seed = self.waiting.get_nowait()
                except Empty:
                    return
                left = _left(self.sweep, self.found, self.out, self.jobs)
                self.say(f"run {number} of {len(self.sweep.runs)}: {arm.name}, seed {seed}{left}")
            try:
                status, reason, seconds = self._train(arm, seed, cores)
            except Stopped:
                return
            with self.noting:
                own = self.found.runs[key_of(self.out, arm, seed)]
                own.status, own.reason, own.seconds = status, reason, seconds
                self.found.save(self.out)
                if status == "failed" and self.stop_on_failure:
                    self.full.set()

    def _train(self, arm: Arm, seed: int, cores: Cores | None) -> tuple[str, str, float | None]:
        """One run: its status, the reason of a failure, its seconds where it was measured whole."""

        def tell(line: str) -> None:
            with self.noting:
                self.say(f"{arm.name}, seed {seed}: {line}")

        def first_estimate(progress: Progress, waited: float) -> int:
            steps, tests = progress.seconds("step"), progress.seconds("testing")
            expected = waited + plan.steps * steps[-1] + plan.steps // plan.test_freq * (tests[-1] if tests else 0.0)
            tell(f"such a run takes about {clock(expected)} here")
            return plan.steps

        plan, folder = self.plans[arm.name], run_dir(self.out, arm, seed)
        if _complete(folder, plan.steps):  # only the note of its end was lost
            tell("was complete, kept")
            return "finished", "", None
        checkpoints = complete_steps(folder / "checkpoints")
        if not checkpoints:
            shutil.rmtree(folder, ignore_errors=True)  # what an interrupted call left
        after = checkpoints[-1] if checkpoints else None
        state.write_arm(folder, arm, seed, plan.changes)
        where = f"goes on from step {after}" if checkpoints else f"{plan.steps} steps"
        tell(f"{where}, log in {folder / 'log.txt'}")
        arguments, began = self.command(overrides(self.sweep, self.out, arm, seed), folder), time.monotonic()
        status, reason = "finished", ""
        try:
            watch(
                arguments,
                folder,
                plan.steps,
                tell,
                review=None if checkpoints else first_estimate,
                after=after,
                held=(self.lock,),
                cores=cores,
                stopped=self.ended.is_set,
            )
        except RunFailed as failure:
            status = "stopped" if failure.status == STOPPED_BY_GUARD else "failed"
            reason = "a guard stopped it" if status == "stopped" else str(failure).splitlines()[0]
            tell(reason if status == "stopped" else str(failure))
        return status, reason, time.monotonic() - began if after is None else None


def _complete(folder: Path, steps: int) -> bool:
    """Whether the last step, with its evaluation, has been written."""
    if not (folder / METRICS).is_file():
        return False
    return "val/success_rate" in read_metrics(folder / METRICS).get(steps, {})


def _left(sweep: Sweep, found: SweepState, out: Path, jobs: int) -> str:
    """How long the rest takes, from what finished runs took: those of the same arm, else of any."""
    measured: dict[str, list[float]] = {}
    for own in found.runs.values():
        if own.status == "finished" and own.seconds:
            measured.setdefault(own.arm, []).append(own.seconds)
    if not measured:
        return ""
    every = fmean(seconds for arm in measured.values() for seconds in arm)
    waiting = [arm for arm, seed in sweep.runs if not found.runs[key_of(out, arm, seed)].done]
    left = sum(fmean(measured.get(arm.name, [every])) for arm in waiting) / min(jobs, len(waiting))
    return f"; about {clock(left)} left for {len(waiting)} run{'s' if len(waiting) > 1 else ''}"


def key_of(out: Path, arm: Arm, seed: int) -> str:
    """A run's folder in that of the comparison, by which ``sweep.json`` knows it."""
    return run_dir(out, arm, seed).relative_to(out).as_posix()
