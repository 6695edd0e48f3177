"""scripts/supervise.sh starts again on code 75 alone, and passes signals on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "supervise.sh"


def supervise(*command, **variables):
    return subprocess.Popen(
        ["bash", str(SCRIPT), *command],
        env={**os.environ, "SUPERVISE_WAIT": "0", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_it_starts_again_until_another_code_comes(tmp_path):
    count = f"echo x >> {tmp_path}/starts; n=$(wc -l < {tmp_path}/starts); [ $n -lt 3 ] && exit 75; exit 4"
    assert supervise("bash", "-c", count).wait(30) == 4
    assert (tmp_path / "starts").read_text() == "x\n" * 3


def test_the_number_of_starts_is_bounded(tmp_path):
    again = f"echo x >> {tmp_path}/starts; exit 75"
    assert supervise("bash", "-c", again, SUPERVISE_LIMIT="2").wait(30) == 75
    assert (tmp_path / "starts").read_text() == "x\n" * 2


def test_a_signal_reaches_the_command_and_ends_the_starts():
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), sys.exit(75)))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = supervise(sys.executable, "-c", code)
    assert process.stdout.readline() == "ready\n"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 75 and time.monotonic() - began < 20
    assert process.stdout.read() == "", "it was started again"


def test_nothing_to_start_is_an_error():
    assert supervise().wait(10) == 2
