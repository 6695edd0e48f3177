"""What a node does in AWS, through its command line: leaves records and notes, reads the token, lets itself go."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import patience

SECONDS = 90.0  # of one command
LONGEST_PAUSE = 600.0  # between two tries to let the node go
# below the run's prefix in S3
MANIFESTS = "checkpoints/manifests/"  # each stands for a checkpoint
RECORDS = "records"  # everything in the run's folder but checkpoints


class TokenError(Exception):
    """The environments' token cannot be read; another try may succeed."""


class Account:
    """Args:
    variables: as for `supervise.Node`.
    stopped: set when the node goes away, with which tries end.

    Attributes:
        prefix: the run's place in S3.
    """

    def __init__(self, variables: Mapping[str, str], stopped: threading.Event) -> None:
        self._variables, self._stopped = variables, stopped
        self.prefix = f"s3://{variables['SDAR_BUCKET']}/runs/{variables['SDAR_RUN']}"

    def note(self, what: str, why: str) -> None:
        """Say beside the checkpoints how the run ended."""
        note = json.dumps({"state": what, "why": why, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
        self._do("s3", "cp", "--only-show-errors", "-", f"{self.prefix}/state.json", stdin=note)

    def keep_records(self, run_dir: Path) -> None:
        """Copy what the run wrote, without its checkpoints."""
        if run_dir.exists():
            place = f"{self.prefix}/{RECORDS}"
            self._do("s3", "sync", "--only-show-errors", "--exclude", "checkpoints/*", str(run_dir), place)

    def has_checkpoint(self) -> bool:
        """Whether S3 holds one."""
        return self._do("s3", "ls", f"{self.prefix}/{MANIFESTS}")

    def let_go(self) -> None:
        """Set the size of the group to 0; tried without end, since a node that stays by mistake costs."""
        group = self._variables["SDAR_GROUP"]
        command = ("autoscaling", "set-desired-capacity", "--auto-scaling-group-name", group, "--desired-capacity", "0")
        pause = patience.PAUSE
        while not self._do(*command):
            say(f"THE NODE STILL RUNS AND COSTS, next try in {pause:g} s: set the size of the group {group} to 0")
            if self._stopped.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE)

    def token(self) -> Path:
        """A file in memory that only this user reads: neither in a command line nor in an environment."""
        path = Path(self._variables["RUNTIME_DIRECTORY"]) / "token"
        asked = ["aws", "secretsmanager", "get-secret-value", "--secret-id", self._variables["SDAR_SECRET"]]
        asked += ["--query", "SecretString", "--output", "text"]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            raise TokenError("the environments' token cannot be read: no answer") from error
        if done.returncode != 0:
            raise TokenError(f"the environments' token cannot be read: {done.stderr.strip()}")
        path.touch(mode=0o600)
        path.write_text(done.stdout.strip(), encoding="utf-8")
        return path

    def _do(self, *words: str, stdin: str | None = None) -> bool:
        """Whether the command worked; what it says goes to the log. A failure here must not cost a checkpoint."""
        try:
            done = subprocess.run(["aws", *words], input=stdin, text=True, timeout=SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            say(f"aws {' '.join(words[:2])}: {error}")
            return False
        return done.returncode == 0


def say(text: str) -> None:
    print(f"[supervise] {text}", flush=True)
