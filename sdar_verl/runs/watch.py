"""One training run as a child process: its metrics become progress lines, and it never outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sdar_verl.errors import SdarError
from sdar_verl.live import clock
from sdar_verl.report.run import read_metrics
from sdar_verl.runs import child as wrapper

Say = Callable[[str], None]
_STOP_SECONDS = 90.0
_POLL = 0.5
_SILENCE = 20.0


class RunFailed(SdarError):
    """A training run ended with an error; the message holds the end of its log, `status` its exit status."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class TooSlow(Exception):
    """The run was stopped because fewer steps fit into the budget; `steps` says how many."""

    def __init__(self, steps: int):
        super().__init__(steps)
        self.steps = steps


class Stopped(Exception):
    """The run was stopped because `stopped` said so."""


@dataclass
class Progress:
    """What ``metrics.jsonl`` has told so far.

    Attributes:
        steps: how many steps the run will make.
        metrics: step to metric name to value; step 0 holds the evaluation of the start model.
    """

    steps: int
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)

    def seconds(self, name: str) -> list[float]:
        """Seconds of ``step`` or ``testing`` (an evaluation, which is no part of its step) where there was one."""
        key = f"timing_s/{name}"
        return [data[key] for step, data in sorted(self.metrics.items()) if step > 0 and key in data]

    def line(self, step: int) -> str:
        """One step as text: success of its episodes, of an evaluation, the gate, seconds, time left."""
        data = self.metrics[step]
        parts = [f"step {step}/{self.steps}"]
        for name, label in (("episode/success_rate", "success"), ("val/success_rate", "evaluation")):
            if name in data:
                parts.append(f"{label} {100 * data[name]:.0f} %")
        if "sdar/gate_mean" in data:
            parts.append(f"gate {data['sdar/gate_mean']:.3f}")
        if "sdar/decision_gate_mean" in data:
            parts.append(f"at decisions {data['sdar/decision_gate_mean']:.3f}")
        if (seconds := data.get("timing_s/step")) is not None:
            parts.append(f"{seconds:.1f} s")
        if 0 < step < self.steps and (seconds := self.seconds("step")):
            recent = seconds[-5:]
            parts.append(f"about {clock((self.steps - step) * sum(recent) / len(recent))} of steps left")
        return ", ".join(parts)


def watch(
    arguments: Sequence[str],
    run_dir: Path,
    steps: int,
    say: Say,
    *,
    review: Callable[[Progress, float], int] | None = None,
    after: int | None = None,
    held: Sequence[int] = (),
    cores: Sequence[int] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Progress:
    """Run `arguments` until it ends and say what ``<run_dir>/metrics.jsonl`` tells; output goes to ``log.txt`` there.

    Args:
        arguments: command line of the run.
        run_dir: the run's folder.
        steps: training steps of the run.
        say: receives progress lines.
        review: called once, after the second step (the first holds one-time work), with the progress and the seconds
            the run spent before its first step; returns how many steps the budget allows.
        after: step of the checkpoint that the run goes on from; the log is kept and steps up to it are not said again.
        held: open file descriptors that the run keeps open as long as it lives, such as that of a lock.
        cores: the run and all that it starts stay on these; None for all.
        stopped: asked twice a second; the run is ended when it says so, for calls that no Ctrl-C reaches.

    Raises:
        RunFailed: the run ended with an error.
        TooSlow: `review` allows fewer than `steps`; the run was stopped.
        Stopped, KeyboardInterrupt: after the run was stopped.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    log, progress, began = run_dir / "log.txt", Progress(steps), time.monotonic()
    metrics, stale = run_dir / "metrics.jsonl", b""
    if after is not None and metrics.is_file():
        before = read_metrics(metrics)
        progress.metrics.update({step: data for step, data in before.items() if step <= after})
        stale = metrics.read_bytes() if max(before, default=after) > after else b""
    with log.open("wb" if after is None else "ab") as output:
        own = ",".join(map(str, cores)) if cores is not None else "all"
        child = subprocess.Popen(
            [sys.executable, "-I", wrapper.__file__, str(os.getpid()), own, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": "1", **os.environ, "PYTHONUNBUFFERED": "1"},
            pass_fds=tuple(held),
            start_new_session=True,  # Ctrl-C reaches it through `stop` alone, once
        )
        try:
            _follow(child, metrics, progress, say, began, review, stale, stopped)
        finally:
            stop(child, say)
    if child.returncode != 0:
        raise RunFailed(
            f"training ended with status {child.returncode}; the whole log is {log}\n{_tail(log)}", child.returncode
        )
    return progress


def _follow(
    child: subprocess.Popen,
    metrics: Path,
    progress: Progress,
    say: Say,
    began: float,
    review: Callable[[Progress, float], int] | None,
    stale: bytes,
    stopped: Callable[[], bool],
) -> None:
    heard = began
    while True:
        if stopped():
            raise Stopped
        ended = child.poll() is not None
        if child.returncode == 0:
            stale = b""
        fresh = _update(metrics, progress, stale)
        for step in fresh:
            say(progress.line(step))
            heard = time.monotonic()
        if review is not None and len(progress.seconds("step")) >= 2:
            spent = sum(progress.seconds("step")) + sum(progress.seconds("testing"))
            allowed = review(progress, max(0.0, time.monotonic() - began - spent))
            review = None
            if allowed < progress.steps:
                raise TooSlow(allowed)
        if ended:
            return
        if time.monotonic() - heard > _SILENCE:
            doing = "starting Ray, the actor and vLLM" if not progress.metrics else "working"
            say(f"{doing} ({clock(time.monotonic() - began)} so far)")
            heard = time.monotonic()
        time.sleep(_POLL)


def _update(metrics: Path, progress: Progress, stale: bytes) -> list[int]:
    """Read what was added; returns the steps that are new.

    A run that goes on from a checkpoint first cuts the steps after it away: until then, the file begins with `stale`.
    """
    if not metrics.is_file() or (stale and metrics.read_bytes().startswith(stale)):
        return []
    found = read_metrics(metrics)
    fresh = [step for step in sorted(found) if step not in progress.metrics]
    progress.metrics.update(found)
    return fresh


def stop(child: subprocess.Popen, say: Say) -> None:
    """End the run and everything it started, kindly at first; does nothing when it has ended."""
    if child.poll() is not None:
        return
    say("stopping the run")
    child.send_signal(wrapper.STOP)
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _tail(log: Path, lines: int = 25) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
