"""Runs a recipe on a node until it has ended: again after interruptions and crashes, and then lets the node go.

Called by the systemd unit that ``start.sh`` writes. It reads ``/etc/sdar`` (written by the user data) and uses the
standard library and the AWS command line alone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import patience
from account import Account, TokenError, say
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

METRICS = "metrics.jsonl"  # a run that has trained has one, and it grows with each step


class Node:
    """One node with one run.

    Args:
        variables: what the user data wrote to ``node.env`` (``SDAR_BUCKET``, ``SDAR_RUN``, ...).
        settings: folder with ``overrides.json`` and ``endpoints.json``.
        project: folder of the release.
    """

    def __init__(self, variables: dict[str, str], settings: Path, project: Path) -> None:
        self._variables, self._settings, self._project = variables, settings, project
        self._stopped = threading.Event()
        self._account = Account(variables, self._stopped)
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
            self._account.keep_records(self._run_dir)
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
        self._account.note(what, why)
        if what == "failed" and self._variables["SDAR_WHEN_FAILED"] == "keep":
            run = self._variables["SDAR_RUN"]
            say(f"the node stays, and costs, until `launch stop {run}` or `launch down` (WhenFailed=keep)")
            return
        self._account.let_go()

    def command(self) -> list[str]:
        """The recipe with its overrides; those of the run come last and win.

        Raises:
            ValueError: a file of settings does not hold a list of texts.
            TokenError: the environments' token cannot be read now.
        """
        command = ["bash", self._variables["SDAR_RECIPE"], f"{RUN_DIR}={self._run_dir}"]
        command += [f"{CHECKPOINTS}={self._account.prefix}/checkpoints", *SPOT]
        if endpoints := self._list("endpoints.json"):
            command.append(f"{ENDPOINTS}=[{','.join(endpoints)}]")
            command.append(f"{TOKEN_FILE}={self._account.token()}")
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
        return self._progress() > 0 or self._account.has_checkpoint()

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
