"""The supervisor as a process, with a recipe and an `aws` command that are scripts of the test."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import supervise
from hydra import compose, initialize_config_module

import sdar_verl.train  # noqa: F401 - registers the search path of verl's configuration

NODE = Path(__file__).parents[2] / "scripts" / "aws" / "node"
SECRET = "0123456789abcdef-token-of-the-services"
FAKE_AWS = """#!/usr/bin/env bash
echo "$*" >> "$CALLS"
[[ "$*" != *"s3 cp"*" - "* ]] || cat > "$CALLS.note"
[[ "$*" != *secretsmanager* ]] || echo "$TOKEN"
[[ -z "${BROKEN:-}" || "$*" != *$BROKEN* ]] || { echo "no way" >&2; exit 1; }
"""
# Ends with the next status of the list; with `wait` it plays until SIGTERM, as a run that saves and ends with 75.
RECIPE = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$HOME/arguments"
env > "$HOME/environment"
mkdir -p "$SDAR_SCRATCH/runs/$SDAR_RUN"
[[ -z "${CHECKPOINT:-}" ]] || mkdir -p "$SDAR_SCRATCH/runs/$SDAR_RUN/checkpoints/global_step_1"
read -r status < "$HOME/statuses"
sed -i 1d "$HOME/statuses"
if [[ $status == wait ]]; then
    trap 'exit 75' TERM
    touch "$HOME/playing"
    while true; do sleep 0.05; done
fi
exit "$status"
"""


class Machine:
    def __init__(self, folder: Path) -> None:
        self.folder, self.calls_file = folder, folder / "calls"
        self.scratch = folder / "scratch"
        (self.scratch / "runs").mkdir(parents=True)
        project = folder / "project"
        (project / "recipes" / "alfworld").mkdir(parents=True)
        (project / "recipes" / "alfworld" / "p5.sh").write_text(RECIPE)
        shutil.copytree(NODE, project / "scripts" / "aws" / "node")
        self._write(folder / "bin" / "aws", FAKE_AWS)
        self.set(overrides=["a=1"], endpoints=[])
        (folder / "run").mkdir()
        self.environment = {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(folder),
            "CALLS": str(self.calls_file),
            "TOKEN": SECRET,
            "SDAR_BUCKET": "bucket",
            "SDAR_RUN": "one",
            "SDAR_RECIPE": "recipes/alfworld/p5.sh",
            "SDAR_SECRET": "arn:secret",
            "SDAR_GROUP": "sdar-one",
            "SDAR_WHEN_FAILED": "stop",
            "SDAR_SCRATCH": str(self.scratch),
            "RUNTIME_DIRECTORY": str(folder / "run"),
        }

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def set(self, **lists) -> None:
        for name, value in lists.items():
            (self.folder / f"{name}.json").write_text(json.dumps(value))

    def start(self, *statuses, arguments=(), **variables) -> subprocess.Popen:
        (self.folder / "statuses").write_text("".join(f"{status}\n" for status in statuses))
        # The very file, with less patience.
        program = (
            "import sys; sys.path.insert(0, sys.argv.pop(1)); import supervise; supervise.PAUSE = 0.02;"
            "sys.exit(supervise.main())"
        )
        node = self.folder / "project" / "scripts" / "aws" / "node"
        command = [sys.executable, "-c", program, str(node), "--settings", str(self.folder), *arguments]
        return subprocess.Popen(
            command, env={**self.environment, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *statuses, **more) -> tuple[int, str]:
        process = self.start(*statuses, **more)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said

    @property
    def left(self) -> list[str]:
        return (self.folder / "statuses").read_text().split()

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []

    @property
    def let_go(self) -> bool:
        return any("set-desired-capacity" in call and call.endswith("--desired-capacity 0") for call in self.calls)

    @property
    def state(self) -> dict:
        return json.loads(Path(f"{self.calls_file}.note").read_text())


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_a_run_that_ends_lets_the_node_go(machine):
    status, said = machine.run(0)
    assert status == 0 and machine.let_go and machine.state["state"] == "ended", said
    sync = next(call for call in machine.calls if "s3 sync" in call)
    assert "--exclude checkpoints/*" in sync and sync.endswith("s3://bucket/runs/one/records")
    arguments = (machine.folder / "arguments").read_text().split()
    assert arguments == [
        f"sdar.run_dir={machine.scratch}/runs/one",
        "sdar.checkpoints.s3=s3://bucket/runs/one/checkpoints",
        *supervise.SPOT,
        "a=1",
    ]


def test_the_settings_that_are_taken_for_granted_are_there():
    with initialize_config_module("sdar_verl.config", version_base=None):
        config = compose("sdar")
        names = [supervise.RUN_DIR, supervise.ENDPOINTS, supervise.TOKEN_FILE]
        if "checkpoints" not in config.sdar:
            compose("sdar", [f"{name}=x" for name in names])
            pytest.skip("this tree has no sdar.checkpoints and sdar.spot yet")
        compose("sdar", [f"{name}=x" for name in (*names, supervise.CHECKPOINTS)] + [*supervise.SPOT])


def test_interruptions_and_crashes_are_started_again(machine):
    status, said = machine.run(75, 1, 75, 75, 137, 75, 0, CHECKPOINT="1")
    assert status == 0 and machine.left == [] and said.count("is started again") == 6
    assert not list(machine.scratch.glob("runs/*.aside-*"))


def test_what_could_not_be_reached_is_tried_again_with_the_limit_of_crashes(machine):
    status, said = machine.run(69, 69, 69, 0, CHECKPOINT="1")
    assert status == 0 and said.count("is started again") == 3
    status, _ = machine.run(69, 69, 69, 69, 0, CHECKPOINT="1")
    assert status == 69 and machine.left == ["0"] and machine.let_go


def test_too_many_crashes_end_it(machine):
    status, _ = machine.run(1, 1, 75, 134, 1, 0, CHECKPOINT="1")
    assert status == 1 and machine.left == ["0"] and machine.let_go
    assert machine.state["state"] == "failed" and "4 crashes" in machine.state["why"]


@pytest.mark.parametrize("hopeless", [2, 3])
def test_what_would_end_the_same_way_again_is_not_tried(machine, hopeless):
    status, _ = machine.run(hopeless, 0)
    assert status == hopeless and machine.left == ["0"] and machine.let_go


def test_a_failed_node_can_be_kept(machine):
    status, said = machine.run(2, SDAR_WHEN_FAILED="keep")
    assert status == 2 and not machine.let_go and "WhenFailed=keep" in said
    assert machine.run(0, SDAR_WHEN_FAILED="keep")[0] == 0 and machine.let_go  # a finished one never is


def test_a_run_without_a_checkpoint_begins_anew_and_its_records_are_kept(machine):
    status, _ = machine.run(75, 75, 0)
    assert status == 0
    assert sorted(p.name for p in machine.scratch.glob("runs/*")) == ["one", "one.aside-1", "one.aside-2"]


def test_a_node_that_goes_away_stops_the_run_and_is_replaced(machine):
    """SIGTERM, as systemd sends it when the machine ends: the next node must find the group's size as it was."""
    process = machine.start("wait", 0)
    end = time.monotonic() + 20
    while not (machine.folder / "playing").exists():
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 75 and machine.left == ["0"] and "next one goes on" in said
    assert not machine.let_go and not Path(f"{machine.calls_file}.note").exists()
    assert any("s3 sync" in call for call in machine.calls)


def test_the_token_is_in_a_file_for_the_run_alone(machine):
    machine.set(endpoints=["ws://a.internal:8400", "ws://b.internal:8400"])
    status, said = machine.run(0)
    assert status == 0
    arguments = (machine.folder / "arguments").read_text()
    assert "env.service.endpoints=[ws://a.internal:8400,ws://b.internal:8400]\n" in arguments
    token = machine.folder / "run" / "token"
    assert f"env.service.token_file={token}\n" in arguments
    assert token.read_text() == SECRET and token.stat().st_mode & 0o777 == 0o600
    environment = (machine.folder / "environment").read_text().replace(f"TOKEN={SECRET}", "")  # the fake's own
    for text in (arguments, said, environment, "\n".join(machine.calls)):
        assert SECRET not in text


def test_without_the_token_nothing_is_started(machine):
    machine.set(endpoints=["ws://a.internal:8400"])
    status, said = machine.run(0, BROKEN="secretsmanager")
    assert status == 1 and machine.left == ["0"] and machine.let_go and "no way" in machine.state["why"]


@pytest.mark.parametrize("bad", ["{", '{"a": 1}', "[1]"])
def test_broken_settings_end_the_node_and_say_why(machine, bad):
    (machine.folder / "overrides.json").write_text(bad)
    status, _ = machine.run(0)
    assert status == 1 and machine.let_go and machine.state["state"] == "failed"


def test_uploads_that_fail_do_not_stop_the_run(machine):
    status, said = machine.run(75, 0, BROKEN="s3", CHECKPOINT="1")
    assert status == 0 and machine.let_go


def test_a_node_that_cannot_be_let_go_says_so(machine):
    status, said = machine.run(0, BROKEN="autoscaling")
    assert "STILL RUNS AND COSTS" in said


def test_a_failed_set_up_gives_the_node_up(machine):
    status, _ = machine.run(0, arguments=["--give-up", "no network"])
    assert status == 1 and machine.left == ["0"] and machine.let_go and machine.state["why"] == "no network"


def test_the_set_up_is_valid_shell_and_writes_a_valid_unit(machine, tmp_path):
    script = (NODE / "start.sh").read_text()
    assert subprocess.run(["bash", "-n", NODE / "start.sh"]).returncode == 0
    unit = script.partition("sdar.service << UNIT\n")[2].partition("UNIT\n")[0]
    assert "Restart=on-failure" in unit and "supervise.py" in unit
    stop = int(unit.partition("TimeoutStopSec=")[2].split()[0])
    assert 60 <= stop < 120, "within the two minutes of a spot interruption"
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze to check the unit with")
    file = tmp_path / "sdar.service"
    python = unit.replace("$root/.venv/bin/python", sys.executable).replace("User=sdar\n", "")
    (tmp_path / "node.env").touch()
    python = python.replace("/etc/sdar/node.env", str(tmp_path / "node.env"))
    file.write_text(python.replace("$root", str(tmp_path)).replace("$SDAR_RUN", "one").replace("$scratch", "/tmp"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True)
    assert str(file) not in done.stderr and "sdar.service" not in done.stderr, done.stderr
