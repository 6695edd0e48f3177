"""One teacher server's process: started again when it ends, and with other arguments when they change."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
import urllib.request
from http.client import HTTPException

import pytest

from sdar_verl.compat import teacher_pool
from sdar_verl.errors import SdarError

PYTHON = """#!{python}
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
arguments = sys.argv[3:]  # after -m and the module
if "broken" in arguments:
    sys.exit("this model cannot be loaded")
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps([os.getpid(), arguments]).encode())
HTTPServer((arguments[-3], int(arguments[-1])), Handler).serve_forever()
"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    """``server("model")``: a `TeacherServer`, without Ray, whose process is a stand-in for vLLM's."""
    python = tmp_path / "python"
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(teacher_pool.sys, "executable", str(python))
    monkeypatch.setattr(teacher_pool.ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setattr(teacher_pool, "on_cpu", lambda: False)
    made = []

    def make(*arguments, restarts=1):
        made.append(teacher_pool.TeacherServer(list(arguments), "token", str(tmp_path / "log"), restarts, 60))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def ask(url):
    """Process and arguments of the server that answers."""
    with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
        pid, arguments = json.loads(answer.read())
    return pid, arguments[0]


def until(done, seconds=60):
    limit = time.monotonic() + seconds
    while True:
        try:
            if done():
                return
        except (OSError, ValueError, HTTPException):  # nobody listens yet, or it ended in the middle of its answer
            pass
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_other_weights_are_a_start_that_was_asked_for(server):
    one = server("first", restarts=0)
    url = one.start()
    pid, model = ask(url)
    assert model == "first"
    for name in ("second", "third"):
        one.load([name])
        until(lambda name=name: ask(url)[1] == name)
    assert one.restarts() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_server_that_ends_comes_back_with_the_newest_weights(server):
    one = server("first", restarts=1)
    url = one.start()
    one.load(["second"])
    until(lambda: ask(url)[1] == "second")
    pid, _ = ask(url)
    os.kill(pid, signal.SIGKILL)
    until(lambda: ask(url)[0] != pid)
    assert ask(url)[1] == "second" and one.restarts() == 1


def test_changes_one_after_the_other_end_with_the_last(server):
    one = server("first", restarts=0)
    url = one.start()
    for name in "abc":
        one.load([name])
    until(lambda: ask(url)[1] == "c")
    assert one.restarts() == 0


def test_a_model_that_cannot_be_loaded_is_said(server):
    with pytest.raises(SdarError, match="(?s)teacher server ended.*this model cannot be loaded"):
        server("broken", restarts=0).start()


def test_the_end_ends_it(server):
    one = server("first", restarts=3)
    pid, _ = ask(one.start())
    one.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
