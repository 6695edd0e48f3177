"""The supervisor as a process, with a recipe and an `aws` command that are scripts of the test."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import patience
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
[[ "$*" != "s3 ls "* || -n "${STORED:-}" ]]
"""
# Ends with the next status of the list; with `wait` it plays until SIGTERM, as a run that saves and ends with 75.
RECIPE = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$HOME/arguments"
env > "$HOME/environment"
echo $$ >> "$HOME/runs"
mkdir -p "$SDAR_SCRATCH/runs/$SDAR_RUN"
[[ -n "${FETCHING:-}" ]] || touch "$SDAR_SCRATCH/runs/$SDAR_RUN/metrics.jsonl"
[[ -z "${STEPS:-}" ]] || echo step > "$SDAR_SCRATCH/runs/$SDAR_RUN/metrics.jsonl"
if [[ -n "${CHECKPOINT:-}" ]]; then
    mkdir -p "$SDAR_SCRATCH/runs/$SDAR_RUN/checkpoints/global_step_1/actor"
    cp "$HOME/$CHECKPOINT" "$SDAR_SCRATCH/runs/$SDAR_RUN/checkpoints/global_step_1/data.pt"
fi
read -r status < "$HOME/statuses"
sed -i 1d "$HOME/statuses"
if [[ $status == hang* ]]; then
    [[ $status == hang ]] || { sleep 0.2; echo step >> "$SDAR_SCRATCH/runs/$SDAR_RUN/metrics.jsonl"; }
    trap '' TERM
    while true; do sleep 0.05; done
fi
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
        with zipfile.ZipFile(folder / "whole", "w") as data:
            data.writestr("x", "x")
        (folder / "half").write_bytes((folder / "whole").read_bytes()[:20])
        self._started: list[subprocess.Popen] = []
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
            "SDAR_HANG_HOURS": "8",
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
            "import sys; sys.path.insert(0, sys.argv.pop(1)); import child, patience, supervise; patience.PAUSE = 0.02;"
            "child.LOOK = 0.05; child.GRACE = 1; sys.exit(supervise.main())"
        )
        node = self.folder / "project" / "scripts" / "aws" / "node"
        command = [sys.executable, "-c", program, str(node), "--settings", str(self.folder), *arguments]
        return self._open(command, {**self.environment, **variables})

    def _open(self, command, variables) -> subprocess.Popen:
        out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = subprocess.Popen(command, env=variables, start_new_session=True, **out)
        self._started.append(process)
        return process

    def set_up(self, settings: dict[str, str | None], **variables: str) -> tuple[int, str]:
        """The very `start.sh` as far as it goes with programs of the test and in folders of the test."""
        etc, script = self.folder / "etc", self.folder / "project" / "scripts" / "aws" / "node" / "start.sh"
        etc.mkdir()
        plain = {"SDAR_DATA_KEY": "", "SDAR_FLASH_ATTN": "", "SDAR_LOG_GROUP": "logs", "AWS_REGION": "us-east-1"}
        own = {name: value for name, value in {**self.environment, **plain, **settings}.items() if value is not None}
        told = [f"{name}={value}" for name, value in own.items() if name.startswith("SDAR_") or name == "AWS_REGION"]
        (etc / "node.env").write_text("\n".join(told))
        places = {"/etc/sdar": etc, "/var/log/sdar": self.folder / "log", "/opt/aws": self.folder / "opt" / "aws"}
        text = script.read_text()
        for place, here in places.items():
            text = text.replace(place, str(here))
        script.write_text(text)
        agent = "amazon-cloudwatch-agent-ctl"
        for name in ("dnf", "sleep", "install", "mountpoint", "id", "chown", "systemctl", agent):
            broken = f'[[ "${{FAILS:-}}" != {name} ]]'
            self._write(self.folder / "bin" / name, f'#!/usr/bin/env bash\necho "{name} $*" >> "$CALLS"\n{broken}\n')
        # No shim of a version manager, which would put another `aws` before the test's.
        self._write(self.folder / "bin" / "python3", f'#!/usr/bin/env bash\nexec {sys.executable} "$@"\n')
        (places["/opt/aws"] / "amazon-cloudwatch-agent" / "bin").mkdir(parents=True)
        shutil.copy(self.folder / "bin" / agent, places["/opt/aws"] / "amazon-cloudwatch-agent" / "bin" / agent)
        kept = {name: value for name, value in self.environment.items() if not name.startswith("SDAR_")}
        process = self._open(["bash", str(script)], {**kept, **variables})
        said, _ = process.communicate(timeout=60)
        return process.returncode, said

    def end(self) -> None:
        """Nothing of a test that failed stays behind."""
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        for run in (self.folder / "runs").read_text().split() if (self.folder / "runs").exists() else ():
            with contextlib.suppress(OSError):  # each has a session of its own; most have ended
                if f"HOME={self.folder}".encode() in Path(f"/proc/{run}/environ").read_bytes().split(b"\0"):
                    os.killpg(int(run), signal.SIGKILL)

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


def until(done, process):
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)


@pytest.fixture
def machine(tmp_path):
    own = Machine(tmp_path)
    yield own
    own.end()


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
        names = (supervise.RUN_DIR, supervise.ENDPOINTS, supervise.TOKEN_FILE, supervise.CHECKPOINTS)
        compose("sdar", [*(f"{name}=x" for name in names), *supervise.SPOT])


def test_interruptions_and_crashes_are_started_again(machine):
    status, said = machine.run(75, 1, 75, 75, 137, 75, 0, CHECKPOINT="whole")
    assert status == 0 and machine.left == [] and said.count("is started again") == 6
    assert not list(machine.scratch.glob("runs/*.aside-*"))


def test_what_could_not_be_reached_is_tried_again_with_the_limit_of_crashes(machine):
    status, said = machine.run(69, 69, 69, 0, CHECKPOINT="whole")
    assert status == 0 and said.count("is started again") == 3
    status, _ = machine.run(69, 69, 69, 69, 0, CHECKPOINT="whole")
    assert status == 0 and machine.left == ["0"] and machine.let_go and "status 69" in machine.state["why"]


def test_too_many_crashes_end_it(machine):
    status, _ = machine.run(1, 1, 75, 134, 1, 0, CHECKPOINT="whole")
    assert status == 0 and machine.left == ["0"] and machine.let_go, "systemd must not start it again"
    assert machine.state["state"] == "failed" and "4 crashes" in machine.state["why"]


@pytest.mark.parametrize("hopeless", [2, 3])
def test_what_would_end_the_same_way_again_is_not_tried(machine, hopeless):
    status, _ = machine.run(hopeless, 0, FETCHING="yes")
    assert status == 0 and machine.left == ["0"] and machine.let_go


@pytest.mark.parametrize("trained", [{"CHECKPOINT": "whole", "STEPS": "1"}, {"FETCHING": "yes", "STORED": "yes"}])
def test_what_a_run_that_has_trained_refuses_may_pass(machine, trained):
    """Here or on the node before: credentials, a hub or a disk for once. Its settings were taken before."""
    status, said = machine.run(2, 75, 2, 0, **trained)
    assert status == 0 and machine.left == [] and machine.state["state"] == "ended", said
    status, _ = machine.run(2, 2, 2, 2, 0, **trained)
    assert status == 0 and machine.left == ["0"] and "status 2: 4 crashes" in machine.state["why"]


def test_a_guard_stops_a_run_that_has_trained_for_good(machine):
    assert machine.run(3, 0, STORED="yes")[0] == 0 and machine.left == ["0"] and machine.let_go


HANGS = {"SDAR_HANG_HOURS": f"{0.6 / 3600:f}", "CHECKPOINT": "whole"}


def test_a_run_that_hangs_is_killed_and_started_again(machine):
    status, said = machine.run("hang", 0, **HANGS)
    assert status == 0 and machine.left == [] and machine.state["state"] == "ended"
    assert "status -9; it is started again" in said


def test_a_run_that_hangs_again_and_again_ends(machine):
    status, _ = machine.run("hang-after-a-step", "hang", 0, **HANGS)
    assert status == 0 and machine.left == ["0"] and machine.let_go and "hung 2 times" in machine.state["why"]


def test_a_run_that_trains_between_two_hangs_goes_on(machine):
    status, _ = machine.run("hang-after-a-step", "hang-after-a-step", 0, **HANGS)
    assert status == 0 and machine.left == [] and machine.state["state"] == "ended"


def test_without_a_limit_a_run_may_take_its_time(machine):
    process = machine.start("wait", SDAR_HANG_HOURS="0")
    time.sleep(1.5)
    assert process.poll() is None and machine.left == []
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


def test_a_failed_node_can_be_kept(machine):
    status, said = machine.run(3, SDAR_WHEN_FAILED="keep")
    assert status == 0 and not machine.let_go and "WhenFailed=keep" in said and "launch stop one" in said
    assert machine.run(0, SDAR_WHEN_FAILED="keep")[0] == 0 and machine.let_go  # a finished one never is


def test_a_run_without_a_checkpoint_begins_anew_and_its_records_are_kept(machine):
    status, _ = machine.run(75, 75, 0)
    assert status == 0
    assert sorted(p.name for p in machine.scratch.glob("runs/*")) == ["one", "one.aside-1", "one.aside-2"]


def test_what_was_fetched_from_s3_before_it_went_away_stays(machine):
    status, _ = machine.run(69, 69, 0, FETCHING="yes")
    assert status == 0 and [path.name for path in machine.scratch.glob("runs/*")] == ["one"]


def test_a_checkpoint_that_was_only_begun_does_not_count(machine):
    """A crash in the first save: the run would refuse to go on, with status 2, and be given up for it."""
    assert machine.run(1, 0, CHECKPOINT="half")[0] == 0
    assert sorted(p.name for p in machine.scratch.glob("runs/*")) == ["one", "one.aside-1"]


def test_a_node_that_goes_away_stops_the_run_and_is_replaced(machine):
    """SIGTERM, as systemd sends it when the machine ends: the next node must find the group's size as it was."""
    process = machine.start("wait", 0)
    until((machine.folder / "playing").exists, process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
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
    assert status == 0 and machine.left == ["0"] and machine.let_go
    assert said.count("no way") == patience.CRASHES and "status 69: 4 crashes" in machine.state["why"]


def test_a_token_that_cannot_be_read_for_a_moment_is_asked_for_again(machine):
    machine.set(endpoints=["ws://a.internal:8400"])
    asked = machine.folder / "asked"
    first, _, rest = FAKE_AWS.partition("\n")
    fails_once = f'[[ "$*" != *secretsmanager* ]] || ! mkdir {asked} 2> /dev/null || exit 1'
    machine._write(machine.folder / "bin" / "aws", "\n".join((first, fails_once, rest)))
    status, said = machine.run(0)
    assert status == 0 and machine.left == [] and "the environments' token cannot be read" in said
    assert machine.state["state"] == "ended"


@pytest.mark.parametrize("bad", ["{", '{"a": 1}', "[1]"])
def test_broken_settings_end_the_node_and_say_why(machine, bad):
    (machine.folder / "overrides.json").write_text(bad)
    status, _ = machine.run(0)
    assert status == 0 and machine.let_go and machine.state["state"] == "failed"


def test_uploads_that_fail_do_not_stop_the_run(machine):
    status, said = machine.run(75, 0, BROKEN="s3", CHECKPOINT="whole")
    assert status == 0 and machine.let_go


def test_a_node_that_cannot_be_let_go_says_so(machine):
    process = machine.start(0, BROKEN="autoscaling")
    until(lambda: sum("set-desired-capacity" in call for call in machine.calls) > 6, process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert said.count("STILL RUNS AND COSTS") > 6


def test_a_supervisor_that_fails_itself_gives_the_node_up(machine):
    """Whatever it is: systemd would start it again and again, each time with an empty list of crashes."""
    (machine.folder / "scratch" / "runs" / "one").mkdir()
    (machine.folder / "scratch" / "runs" / "one" / "metrics.jsonl").mkdir()
    (machine.folder / "project" / "scripts" / "aws" / "node" / "zipfile.py").write_text("is_zipfile = None\n")
    (machine.folder / "scratch" / "runs" / "one" / "checkpoints" / "global_step_1").mkdir(parents=True)
    (machine.folder / "scratch" / "runs" / "one" / "checkpoints" / "global_step_1" / "data.pt").touch()
    status, said = machine.run(0)
    assert status == 0 and machine.left == ["0"] and machine.let_go, said
    assert "TypeError" in machine.state["why"]


def test_a_failed_set_up_gives_the_node_up(machine):
    status, _ = machine.run(0, arguments=["--give-up", "no network"])
    assert status == 0 and machine.left == ["0"] and machine.let_go and machine.state["why"] == "no network"


@pytest.mark.parametrize(
    ("fails", "settings", "why"),
    [
        ({"FAILS": "dnf"}, {}, "again dnf install"),
        ({"BROKEN": "data.tar"}, {"SDAR_DATA_KEY": "data/games.tar"}, "again aws s3 cp"),
        ({"BROKEN": "releases/"}, {"SDAR_FLASH_ATTN": "releases/f.whl"}, "again aws s3 cp"),
        ({"FAILS": "chown"}, {"SDAR_DATA_KEY": ""}, "again bash scripts/setup.sh gpu"),  # there is no such file here
        ({"FAILS": "install"}, {}, "install -d -m 755"),
        ({}, {"SDAR_LOG_GROUP": None}, None),  # not set
    ],
)
def test_whatever_fails_in_the_set_up_lets_the_node_go(machine, fails, settings, why):
    status, said = machine.set_up(settings, **fails)
    assert status not in (0, 143) and machine.let_go and machine.state["state"] == "failed", said
    assert not any("systemctl" in call for call in machine.calls)
    assert "setting up the node failed with status" in machine.state["why"]
    if why is not None:
        line = int(machine.state["why"].partition("in line ")[2].split()[0])
        assert why in (NODE / "start.sh").read_text().splitlines()[line - 1]


def test_a_set_up_that_is_interrupted_leaves_the_size_of_the_group(machine):
    """A spot interruption during the set-up: another node shall go on."""
    setup = machine.folder / "project" / "scripts" / "setup.sh"
    setup.write_text("kill -TERM $PPID; exit 143\n")
    status, said = machine.set_up({})
    assert status == 143 and not machine.let_go, said


@pytest.mark.parametrize("wheel", ["", "releases/flash-1.whl", "https://example.org/flash-1.whl"])
def test_a_wheel_of_flash_attention_spares_each_node_its_compilation(machine, wheel):
    setup = machine.folder / "project" / "scripts" / "setup.sh"
    setup.write_text('echo "setup with ($FLASH_ATTN)"; exit 1\n')
    _, said = machine.set_up({"SDAR_FLASH_ATTN": wheel})
    given = f"/opt/dlami/nvme/sdar/{wheel.partition('/')[2]}" if wheel.startswith("releases/") else wheel
    assert f"setup with ({given})" in said
    fetched = [call for call in machine.calls if call.endswith(f"s3://bucket/{wheel} {given}")]
    assert len(fetched) == wheel.startswith("releases/")


def test_the_set_up_is_valid_shell_and_writes_a_valid_unit(machine, tmp_path):
    script = (NODE / "start.sh").read_text()
    assert subprocess.run(["bash", "-n", NODE / "start.sh"]).returncode == 0
    unit = script.partition("sdar.service << UNIT\n")[2].partition("UNIT\n")[0]
    assert "Restart=on-failure" in unit and "supervise.py" in unit
    # neither a process that the kernel kills for memory nor a supervisor that always dies costs without end
    assert "OOMPolicy=continue" in unit and "StartLimitBurst=" in unit and "OnFailure=sdar-given-up.service" in unit
    last = script.partition("sdar-given-up.service << UNIT\n")[2].partition("UNIT\n")[0]
    assert "--give-up" in last and "Restart=on-failure" in last and "StartLimit" not in last
    stop = int(unit.partition("TimeoutStopSec=")[2].split()[0])
    assert 60 <= stop < 120, "within the two minutes of a spot interruption"
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze to check the unit with")
    (tmp_path / "node.env").touch()
    files = [tmp_path / "sdar.service", tmp_path / "sdar-given-up.service"]
    for file, text in zip(files, (unit, last), strict=True):
        text = text.replace("$root/.venv/bin/python", sys.executable).replace("User=sdar\n", "")
        text = text.replace("/etc/sdar/node.env", str(tmp_path / "node.env"))
        file.write_text(text.replace("$root", str(tmp_path)).replace("$SDAR_RUN", "one").replace("$scratch", "/tmp"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True)
    assert str(tmp_path) not in done.stderr and "sdar" not in done.stderr, done.stderr
