"""Runs a recipe on a node until it has ended: again after interruptions and crashes, and then lets the node go.

Called by the systemd unit that ``start.sh`` writes. It reads ``/etc/sdar`` (written by the user data) and uses the
standard library and the AWS command line alone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import patience
from child import Child

# --- what this file takes for granted of a run; no template and no other script names any of it -----------------------
CHECKPOINTS = "sdar.checkpoints.s3"  # s3://BUCKET/PREFIX
RUN_DIR = "sdar.run_dir"
SPOT = ("sdar.spot.imds=true", "sdar.spot.sigterm=true")  # watch the metadata service; SIGTERM is a notice too
ENDPOINTS, TOKEN_FILE = "env.service.endpoints", "env.service.token_file"
LAST_WRITTEN = "checkpoints/global_step_*/data.pt"  # a zip file; a checkpoint without it is half written
DATA_VARIABLES = ("ALFWORLD_DATA", "WEBSHOP_DATA", "SEARCH_QA_DATA")
ENDED = 0
INTERRUPTED = 75  # saved what it had; start it again
UNREACHABLE = 69  # something outside does not answer; a crash like any other
REFUSED = 2
HOPELESS = {REFUSED: "it refused its settings", 3: "a guard stopped it"}  # the same again would end the same

UPLOAD_SECONDS = 90.0
LONGEST_PAUSE = 600.0  # between two tries to let the node go
METRICS = "metrics.jsonl"  # a run that has trained has one, and it grows with each step
MANIFESTS = "checkpoints/manifests/"  # in S3, below the run's prefix: each stands for a checkpoint
RECORDS = "records"  # under the run's prefix: everything in the run's folder but checkpoints


class TokenError(Exception):
    """The environments' token cannot be read; another try may succeed."""


class Node:
    """One node with one run.

    Args:
        variables: what the user data wrote to ``node.env`` (``SDAR_BUCKET``, ``SDAR_RUN``, ...).
        settings: folder with ``overrides.json`` and ``endpoints.json``.
        project: folder of the release.
    """

    def __init__(self, variables: dict[str, str], settings: Path, project: Path) -> None:
        self._variables, self._settings, self._project = variables, settings, project
        self._prefix = f"s3://{variables['SDAR_BUCKET']}/runs/{variables['SDAR_RUN']}"
        self._stopped = threading.Event()
        self._child: Child | None = None

    @property
    def stopped(self) -> bool:
        """The node goes away."""
        return self._stopped.is_set()

    def supervise(self) -> int:
        """Run until the end; 0 when nothing is left to do here, well or not, 75 if the node is stopped.

        systemd starts whatever ends with another status again, and with it what was given up.
        """
        left = patience.Patience()
        while not self.stopped:
            self._make_room()
            status = self._run()
            self._keep_records()
            if self.stopped:
                break
            if status == ENDED:
                self.end("ended", "")
                return 0
            if why := self._over(status, left):
                self.end("failed", why)
                return 0
            say(f"the run ended with status {status}; it is started again in {left.pause:g} s")
            self._stopped.wait(left.pause)
        say("the node is being stopped; the next one goes on")
        return INTERRUPTED

    def stop(self) -> None:
        """The node goes away: pass it on to the run, and start nothing more."""
        self._stopped.set()
        if self._child is not None:
            self._child.terminate()

    def end(self, what: str, why: str) -> None:
        """Leave a note beside the checkpoints and let the node go, unless a failed one is to be kept."""
        say(f"the run {what}{': ' + why if why else ''}")
        note = json.dumps({"state": what, "why": why, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
        self._aws("s3", "cp", "--only-show-errors", "-", f"{self._prefix}/state.json", stdin=note)
        if what == "failed" and self._variables["SDAR_WHEN_FAILED"] == "keep":
            run = self._variables["SDAR_RUN"]
            say(f"the node stays, and costs, until `launch stop {run}` or `launch down` (WhenFailed=keep)")
            return
        group = self._variables["SDAR_GROUP"]
        command = ("autoscaling", "set-desired-capacity", "--auto-scaling-group-name", group, "--desired-capacity", "0")
        pause = patience.PAUSE
        # without end: a node that stays by mistake costs
        while not self._aws(*command):
            say(f"THE NODE STILL RUNS AND COSTS, next try in {pause:g} s: set the size of the group {group} to 0")
            if self._stopped.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE)

    def command(self) -> list[str]:
        """The recipe with its overrides; those of the run come last and win.

        Raises:
            ValueError: a file of settings does not hold a list of texts.
            TokenError: the environments' token cannot be read now.
        """
        command = ["bash", self._variables["SDAR_RECIPE"], f"{RUN_DIR}={self._run_dir}"]
        command += [f"{CHECKPOINTS}={self._prefix}/checkpoints", *SPOT]
        if endpoints := self._list("endpoints.json"):
            command.append(f"{ENDPOINTS}=[{','.join(endpoints)}]")
            command.append(f"{TOKEN_FILE}={self._token()}")
        return [*command, *self._list("overrides.json")]

    @property
    def _run_dir(self) -> Path:
        return Path(self._variables["SDAR_SCRATCH"]) / "runs" / self._variables["SDAR_RUN"]

    def _over(self, status: int, left: patience.Patience) -> str:
        """Why a run that ended with `status` is not started again; empty if it is."""
        hung, moved = (False, False) if self._child is None else (self._child.hung, self._child.moved)
        if status == INTERRUPTED and not hung:
            left.interrupted()
            return ""
        if status in HOPELESS and not hung and not (status == REFUSED and self._has_trained()):
            return f"status {status}: {HOPELESS[status]}"
        return left.crashed(status, hung=hung, moved=moved)

    def _run(self) -> int:
        self._child = None
        data = str(Path(self._variables["SDAR_SCRATCH"]) / "data")
        variables = {**os.environ, **dict.fromkeys(DATA_VARIABLES, data)}
        try:
            command = self.command()
        except TokenError as error:
            say(str(error))
            return UNREACHABLE
        self._child = Child(command, self._project, variables)
        if self.stopped:  # the signal came while it was started
            self._child.terminate()
        return self._child.wait(self._progress, 3600 * float(self._variables["SDAR_HANG_HOURS"]))

    def _progress(self) -> int:
        file = self._run_dir / METRICS
        return file.stat().st_size if file.exists() else 0

    def _has_trained(self) -> bool:
        """Here or on an earlier node: its settings were taken before, so that a refusal now may pass by itself."""
        return self._progress() > 0 or self._aws("s3", "ls", f"{self._prefix}/{MANIFESTS}")

    def _make_room(self) -> None:
        """Put a run that has trained, without a complete checkpoint, aside: it cannot go on, and has nothing to lose.

        One that has not trained is left: what of a checkpoint was fetched from S3 so far need not come again.
        """
        if (self._run_dir / METRICS).exists() and not any(map(zipfile.is_zipfile, self._run_dir.glob(LAST_WRITTEN))):
            number = len(list(self._run_dir.parent.glob(f"{self._run_dir.name}.aside-*"))) + 1
            self._run_dir.rename(self._run_dir.with_name(f"{self._run_dir.name}.aside-{number}"))

    def _list(self, name: str) -> list[str]:
        found: Any = json.loads((self._settings / name).read_text(encoding="utf-8"))
        if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
            raise ValueError(f"{name} must hold a JSON list of texts, not {found!r}")
        return found

    def _token(self) -> Path:
        """A file in memory that only this user reads: neither in a command line nor in an environment."""
        path = Path(self._variables["RUNTIME_DIRECTORY"]) / "token"
        asked = ["aws", "secretsmanager", "get-secret-value", "--secret-id", self._variables["SDAR_SECRET"]]
        asked += ["--query", "SecretString", "--output", "text"]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, timeout=UPLOAD_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise TokenError("the environments' token cannot be read: no answer") from error
        if done.returncode != 0:
            raise TokenError(f"the environments' token cannot be read: {done.stderr.strip()}")
        path.touch(mode=0o600)
        path.write_text(done.stdout.strip(), encoding="utf-8")
        return path

    def _keep_records(self) -> None:
        if self._run_dir.exists():
            self._aws(
                "s3", "sync", "--only-show-errors", "--exclude", "checkpoints/*", str(self._run_dir),
                f"{self._prefix}/{RECORDS}",
            )  # fmt: skip

    def _aws(self, *words: str, stdin: str | None = None) -> bool:
        """Whether the command worked; what it says goes to the log. A failure here must not cost a checkpoint."""
        try:
            done = subprocess.run(["aws", *words], input=stdin, text=True, timeout=UPLOAD_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            say(f"aws {' '.join(words[:2])}: {error}")
            return False
        return done.returncode == 0


def say(text: str) -> None:
    print(f"[supervise] {text}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the recipe of this node.")
    parser.add_argument("--settings", type=Path, default=Path("/etc/sdar"))
    parser.add_argument("--give-up", metavar="WHY", help="do not run: note that the run failed, and let the node go")
    args = parser.parse_args()
    node = Node(dict(os.environ), args.settings, Path(__file__).resolve().parents[3])
    if args.give_up is not None:
        node.end("failed", args.give_up)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: node.stop())
    try:
        return node.supervise()
    except Exception as error:  # whatever it is: a supervisor that is started again and again trains nothing and costs
        if node.stopped:
            return INTERRUPTED
        node.end("failed", f"{type(error).__name__}: {error}")
        return 0


if __name__ == "__main__":
    sys.exit(main())
