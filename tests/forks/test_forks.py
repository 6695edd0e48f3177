"""Forks instead of new processes: what the program sees and how it ends are the same, and nothing outlives its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from sdar_verl.forks.starter import MODULES, Forks

MODULE = "wave"  # which nothing else here imports
LOOK = f"import os, sys; print(os.getppid(), {MODULE!r} in sys.modules)"


@pytest.fixture
def forks(tmp_path):
    with served(tmp_path, [MODULE]) as found:
        yield found


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@contextmanager
def served(tmp_path, modules=MODULES):
    """A server, whose folder goes with it."""
    found = Forks(tmp_path / "forks", {}, modules)
    try:
        yield found
    finally:
        found.stop()
        assert not (tmp_path / "forks").exists()


def said(tmp_path):
    return (tmp_path / "forks/forks.log").read_text()


def run(command, *arguments, **more):
    return subprocess.run([command, *arguments], capture_output=True, text=True, timeout=60, **more)


def start(forks, tmp_path, program):
    """Client and forked process; the program has begun."""
    (tmp_path / "program.py").write_text(f"import os\nprint(os.getpid(), flush=True)\n{program}\n")
    client = subprocess.Popen([forks.command, str(tmp_path / "program.py")], stdout=subprocess.PIPE, text=True)
    return client, psutil.Process(int(client.stdout.readline()))


def gone(process, seconds=15.0):
    limit = time.monotonic() + seconds
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < limit:
        time.sleep(0.05)
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_program_sees_what_it_would_see_in_a_python_of_its_own(forks, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys, tempfile\n"
        "own = {k: v for k, v in os.environ.items() if k not in ('PWD', 'OLDPWD', '_', 'SHLVL')}\n"  # the shell's
        "print(__name__, __file__, sys.argv, sys.path[0], os.getcwd(), sorted(own.items()))\n"
        "print(sys.stdin.read(), tempfile.gettempdir(), os.nice(0))\n"
        "print('to stderr', file=sys.stderr)\n"
    )
    more = {"input": "to stdin", "cwd": tmp_path, "env": {**os.environ, "MINE": "ä 1", "TMPDIR": str(tmp_path)}}
    forked = run(forks.command, "-u", "-X", "utf8", str(program), "a b", "--c=1", **more)
    assert forked.stdout == run(sys.executable, str(program), "a b", "--c=1", **more).stdout
    assert forked.stderr == "to stderr\n" and forked.returncode == 0
    parent, imported = run(forks.command, "-c", LOOK).stdout.split()
    assert int(parent) == forks.pid and imported == "True", "it was not forked"
    assert run(forks.command, "-m", "this").stdout.startswith("The Zen of Python")


@pytest.mark.parametrize(
    "program, code",
    [
        ("pass", 0),
        ("import sys; sys.exit(7)", 7),
        ("import sys; sys.exit('a reason')", 1),
        ("raise ValueError('mine')", 1),
        ("raise KeyboardInterrupt", 130),
        ("import os; os._exit(3)", 3),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    ],
)
def test_it_ends_as_the_program_does(forks, program, code):
    ended = run(forks.command, "-c", program)
    assert ended.returncode == code
    assert ("ValueError: mine" in ended.stderr) == ("ValueError" in program)
    assert (ended.stderr == "a reason\n") == ("a reason" in program)


def test_threads_and_exit_functions_come_before_the_end(forks):
    program = (
        "import atexit, threading, time\n"
        "atexit.register(print, 'at exit', end='.')\n"
        "threading.Thread(target=lambda: (time.sleep(0.5), print('thread', end=' '))).start()"
    )
    assert run(forks.command, "-c", program).stdout == "thread at exit."


def test_open_files_are_handed_over_so_that_multiprocessing_spawns_there(forks, tmp_path):
    (tmp_path / "work.py").write_text(
        "import multiprocessing, os, sys\n"
        "def work(pipe):\n"
        f"    pipe.send((os.getppid(), {MODULE!r} in sys.modules))\n"
        "    sys.exit(5)\n"
        "if __name__ == '__main__':\n"
        f"    multiprocessing.set_executable({forks.command!r})\n"
        "    here, there = multiprocessing.Pipe()\n"
        "    process = multiprocessing.get_context('spawn').Process(target=work, args=(there,))\n"
        "    process.start()\n"
        "    print(*here.recv())\n"
        "    process.join()\n"
        "    print(process.exitcode)\n"
    )
    assert run(sys.executable, str(tmp_path / "work.py")).stdout.split() == [str(forks.pid), "True", "5"]


def test_two_forks_draw_different_numbers(forks):
    draw = "import random, numpy; print(random.random(), numpy.random.rand())"
    first, second = (run(forks.command, "-c", draw).stdout.split() for _ in range(2))
    assert first[0] != second[0] and first[1] != second[1]


def test_signals_reach_the_program(forks, tmp_path):
    program = "import signal, time\nsignal.signal(15, lambda *_: exit(4))\nprint(1, flush=True)\ntime.sleep(60)"
    client, process = start(forks, tmp_path, program)
    client.stdout.readline()
    client.terminate()
    assert client.wait(15) == 4 and gone(process)


def test_a_killed_client_takes_its_program_along(forks, tmp_path):
    client, process = start(forks, tmp_path, "import time\ntime.sleep(60)")
    client.kill()
    assert gone(process)
    assert run(forks.command, "-c", "print(1)").stdout == "1\n", "the server did not survive it"


def test_other_values_of_what_python_reads_at_its_start_get_a_python_of_their_own(forks, tmp_path):
    seeded = {**os.environ, "PYTHONHASHSEED": "7"}
    ended = run(forks.command, "-c", f"{LOOK}; print(hash('a'))", env=seeded)
    plain = run(sys.executable, "-c", "print(hash('a'))", env=seeded)
    assert ended.stdout.split()[1:] == ["False", plain.stdout.strip()]
    assert "PYTHONHASHSEED is '7', not None" in said(tmp_path)
    preloaded = run(forks.command, "-c", LOOK, env={**os.environ, "LD_PRELOAD": "/nowhere/libmine.so"})
    assert preloaded.stdout.split()[1] == "False" and "libmine.so" in preloaded.stderr
    libc = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libc.so" in line)
    assert run(forks.command, "-c", LOOK, env={**os.environ, "LD_PRELOAD": libc}).stdout.split()[1] == "True"


def test_a_server_with_threads_forks_nothing(tmp_path, monkeypatch):
    thread = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    (tmp_path / "threads.py").write_text(thread)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with served(tmp_path, ["threads"]) as forks:
        ended = run(forks.command, "-c", LOOK)
        assert int(ended.stdout.split()[0]) != forks.pid
        assert "1 threads would be missing" in said(tmp_path)


@pytest.mark.parametrize("modules", [["no_such_module"], ["ray"]])
def test_without_a_server_python_starts_anew(tmp_path, modules):
    with served(tmp_path, modules) as forks:
        ended = run(forks.command, "-c", "import sys; print('here'); sys.exit(6)")
        assert ended.stdout == "here\n" and ended.returncode == 6


def test_the_server_ends_with_the_process_that_started_it(tmp_path):
    program = (
        "import pathlib, sys, time; from sdar_verl.forks.starter import Forks\n"
        "print(Forks(pathlib.Path(sys.argv[1]) / 'forks', {}, []).pid, flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    server = psutil.Process(int(starter.stdout.readline()))
    starter.kill()
    assert gone(server) and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_large_libraries_can_be_forked(tmp_path):
    """Guards that none of them starts a thread or imports Ray."""
    with served(tmp_path) as forks:
        look = "import os, sys; print(os.getppid(), 'torch' in sys.modules, 'ray' in sys.modules)"
        ended = run(forks.command, "-c", look)
        assert ended.stdout.split() == [str(forks.pid), "True", "False"], said(tmp_path)
