"""A real training run as its own process: start it, look at it, hurt it, and count what it leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from sdar_verl import leftovers
from sdar_verl.evaluation.jsonl import read_records
from sdar_verl.evaluation.records import EpisodeRecord
from sdar_verl.forks.client import NAME
from sdar_verl.forks.starter import COMMAND, Forks

SHORT = {  # a setting in which a step takes about two seconds
    "platform": "cpu",
    "env.valid_split": "valid_unseen",
    "env.alfworld.max_steps": 3,
    "env.alfworld.thinking": "false",
    "env.pool.workers": 1,
    "env.pool.envs_per_worker": 8,
    "sdar.panel.size": 6,
    "sdar.skills.store": "alfworld_tiny",
    "sdar.teacher.max_prompt_length": 800,
    "sdar.poll_seconds": 0.2,
    "data.train_batch_size": 4,
    "data.max_prompt_length": 560,
    "data.max_response_length": 12,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
    "actor_rollout_ref.rollout.n": 2,
    "actor_rollout_ref.rollout.max_model_len": 896,
    "actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes": 128 * 2**20,
    "actor_rollout_ref.rollout.val_kwargs.temperature": 1.0,
    "trainer.total_training_steps": 2,
    "trainer.test_freq": 1,
    "trainer.val_before_train": "true",
}


class RealRun:
    """``python -m sdar_verl.train`` with `SHORT` and more, in a process group and a temp folder of its own.

    Args:
        run_dir: the run's folder; a second run there resumes.
        overrides: Hydra keys and values that replace or extend `SHORT`.
        log: file for everything the run prints.
        temp: the temp folder of a run before.
        phases: let its timers tell which phase they time, for `phases`.
        alone: import the large libraries anew, as ``sdar train`` does, instead of forking from the tests' own server.
    """

    def __init__(
        self,
        run_dir: Path,
        overrides: dict[str, Any],
        log: Path,
        temp: Path | None = None,
        phases: bool = False,
        alone: bool = False,
    ):
        self.run_dir, self.log = run_dir, log
        self.temp = temp or Path(tempfile.mkdtemp(prefix="e2e", dir="/tmp"))  # short: socket names live in it
        self._seen: set[psutil.Process] = set()
        self._looked = 0.0
        self.shared_memory: set[int] = set()  # inodes of what its processes were seen to hold
        self._ports: dict[str, int] = {}  # listening socket to port
        keys = {**SHORT, "sdar.run_dir": run_dir, **overrides}
        if (env := overrides.get("env", "alfworld")) != "alfworld":
            keys = {key: value for key, value in keys.items() if not key.startswith("env.alfworld.")}
            keys = {"env": env, **keys}
        self._phases = log.with_suffix(".phases")
        told: dict[str, str] = {}
        if phases:
            self._phases.write_text("")
            told = {"PHASES_FILE": str(self._phases)}
        if phases or alone:
            python = sys.executable
        else:
            python = told[COMMAND] = forks().command
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [python, "-m", "sdar_verl.train", *(f"{key}={value}" for key, value in keys.items())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background shells ignore it
                env={
                    **os.environ,
                    **environment(),
                    "TMPDIR": str(self.temp),
                    "RAY_worker_niceness": "0",
                    **told,
                },
            )

    # --- looking ------------------------------------------------------------------------------------------------

    def look(self) -> set[psutil.Process]:
        """Every process of the run that lives now, remembered for `left`."""
        found = {known for known in self._seen if _alive(known)}
        try:
            root = psutil.Process(self.process.pid)
            found |= {root, *root.children(recursive=True)}
        except psutil.NoSuchProcess:
            pass
        todo = list(found)
        while todo:
            try:
                own = todo.pop()
                new = {*own.children(recursive=True), *_forked(own)} - found
            except psutil.NoSuchProcess:
                continue
            found |= new
            todo += new
        self._seen |= found
        self.shared_memory |= leftovers.in_use(process.pid for process in found)
        return {process for process in found if _alive(process)}

    def _remember(self) -> None:
        """`look` every five seconds: it reads every map of a dozen large processes, which need the cores themselves."""
        if time.monotonic() > self._looked + 5:
            self.look()
            self._looked = time.monotonic()

    def named(self, part: str) -> list[psutil.Process]:
        """Living processes of the run whose command line holds `part`."""
        result = []
        for process in self.look():
            try:
                if part in " ".join(process.cmdline()):
                    result.append(process)
            except psutil.NoSuchProcess:
                continue
        return result

    def note_ports(self) -> set[int]:
        """The TCP ports that the run listens on now; their sockets are remembered for `left`."""
        self._ports |= _listening({process.pid for process in self.look()})
        return set(self._ports.values())

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The whole lines of a JSON-lines file in the run folder; empty while there is none."""
        path = self.run_dir / name
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def steps(self) -> list[int]:
        return [line["step"] for line in self.lines("metrics.jsonl")]

    def whole_steps(self, episodes: int) -> list[int]:
        """The recorded steps; fails the test unless each is there once, in order, with so many episodes."""
        steps = self.steps()
        assert steps == sorted(set(steps))
        played = list(read_records(self.run_dir / "episodes" / "train.jsonl", EpisodeRecord))
        assert len({(e.step, e.uid, e.session) for e in played}) == len(played), "an episode is there twice"
        assert {step: sum(e.step == step for e in played) for step in steps} == dict.fromkeys(steps, episodes)
        return steps

    def phases(self) -> list[str]:
        """``begin <phase>`` and ``end <phase>`` as verl's timers told them; see site/sitecustomize.py."""
        return self._phases.read_text().splitlines()

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def left(self, grace: float = 10) -> list[str]:
        """What the run left behind: processes, listening ports, entries in its temp folder, shared memory.

        A process that is ending while the driver has ended already is given `grace` seconds on a busy machine.
        """
        limit = time.monotonic() + grace
        while (found := self._left_now()) and time.monotonic() < limit:
            time.sleep(0.5)
        return found

    def _left_now(self) -> list[str]:
        found = [f"process {process.pid}: {process.name()}" for process in self.look()]
        # the socket, not its number: a run beside this one may have taken a port that this one gave back
        found += [f"port {port}" for socket, port in _listening().items() if socket in self._ports]
        if self.temp.exists():
            found += [f"temp {path.name}" for path in self.temp.iterdir()]
        held = [name for name, status in leftovers.unused().items() if status.st_ino in self.shared_memory]
        return found + [f"shared memory {name}" for name in held]

    # --- waiting ------------------------------------------------------------------------------------------------

    def until(self, done: Callable[[], Any], what: str, timeout: float = 480, pause: float = 0.3) -> Any:
        """Wait until `done` gives something true while the run is alive, asking every `pause` seconds; returns it."""
        limit = time.monotonic() + timeout
        while True:
            if result := done():
                return result
            self._remember()
            code = self.process.poll()
            assert code is None, f"the run ended with {code} before {what}:\n{self.tail()}"
            assert time.monotonic() < limit, f"no {what} within {timeout} s:\n{self.tail()}"
            time.sleep(pause)

    def wait(self, timeout: float = 600) -> int:
        """The exit code; fails the test when the run takes longer."""
        limit = time.monotonic() + timeout
        while (code := self.process.poll()) is None:
            self._remember()
            assert time.monotonic() < limit, f"the run did not end within {timeout} s:\n{self.tail()}"
            time.sleep(0.3)
        return code

    def wait_gone(self, timeout: float) -> None:
        """Fails the test unless every process of the run ends within `timeout` seconds."""
        limit = time.monotonic() + timeout
        while alive := self.look():
            names = [process.name() for process in alive if _alive(process)]
            assert time.monotonic() < limit, f"still alive {timeout} s later: {names}"
            time.sleep(0.3)

    # --- ending -------------------------------------------------------------------------------------------------

    def signal(self, number: signal.Signals) -> None:
        """To the driver alone, as `kill` does; `number` SIGINT as a terminal's Ctrl-C goes to the whole group."""
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            os.kill(self.process.pid, number)

    def destroy(self) -> None:
        """Whatever the test left: kill it and remove its temp folder."""
        for process in self.look():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
        self.process.wait()
        shutil.rmtree(self.temp, ignore_errors=True)


@cache
def forks() -> Forks:
    """A server of forks for the runs of this process; it ends with it."""
    return Forks(Path(tempfile.mkdtemp(prefix="forks", dir="/tmp")), environment())


def environment() -> dict[str, str]:
    """What a run and the process that it is forked from must agree in."""
    return {"PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1", "VERL_PLATFORM": "cpu"}


def python_path() -> str:
    """PYTHONPATH with the folder of site/sitecustomize.py before what is there."""
    return os.pathsep.join(filter(None, [str(Path(__file__).parent / "site"), os.environ.get("PYTHONPATH", "")]))


def _forked(process: psutil.Process) -> list[psutil.Process]:
    """What a client of a server of forks stands for."""
    name, _, pid = process.name().partition(" ")
    return [psutil.Process(int(pid))] if name == NAME and pid.isdigit() else []


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _listening(pids: set[int] | None = None) -> dict[str, int]:
    """Listening TCP sockets (of the processes `pids`, else of all), as the kernel names them, with their ports."""
    found = {}
    for connection in psutil.net_connections("tcp"):
        if connection.status != psutil.CONN_LISTEN or (pids is not None and connection.pid not in pids):
            continue
        try:
            found[os.readlink(f"/proc/{connection.pid}/fd/{connection.fd}")] = connection.laddr.port
        except FileNotFoundError:
            continue  # closed since
    return found
