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


def test_what_could_not_be_reached_is_tried_again_but_not_for_ever(tmp_path):
    count = f"echo x >> {tmp_path}/starts; [ $(wc -l < {tmp_path}/starts) -lt 4 ] && exit 69; exit 4"
    assert supervise("bash", "-c", count, SUPERVISE_UNREACHABLE="4").wait(30) == 4
    assert supervise("bash", "-c", "exit 69", SUPERVISE_UNREACHABLE="3").wait(30) == 69
    process = supervise("bash", "-c", "exit 69", SUPERVISE_WAIT="1", SUPERVISE_UNREACHABLE="3")
    began = time.monotonic()
    assert process.wait(30) == 69 and time.monotonic() - began > 2.5, "1 s, then 2 s"


def test_ctrl_c_reaches_the_command_and_its_code_is_the_scripts():
    code = (
        "import sys, time\n"
        "try:\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(41)\n"
    )
    process = supervise(sys.executable, "-c", code)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 41


def test_the_code_of_a_command_that_ends_with_the_signal_is_its_own():
    for _ in range(10):
        process = supervise("bash", "-c", "kill -TERM $PPID; exit 75")
        assert process.wait(20) in (75, 143)  # ended before it was told, or by what it was told
    process = supervise("bash", "-c", "trap '' TERM; kill -TERM $PPID; exit 6")
    assert process.wait(20) == 6, "the signal's code was taken for the command's"


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
