"""In a fork: become the process that was asked for, run its program, and end as it does."""

from __future__ import annotations

import atexit
import fcntl
import os
import random
import runpy
import signal
import sys
import tempfile
import threading
import traceback
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from sdar_verl.forks.client import PASSED_ON


def become(request: Mapping) -> None:
    """Turn this process into the one that was asked for, and run its program."""
    free = max([64, *request["files"]]) + 1
    high = [_move_up(file, free) for file in request["received"]]
    for file, number in zip(high, request["files"], strict=True):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    with suppress(PermissionError):  # the server is nicer than who asks
        os.setpriority(os.PRIO_PROCESS, 0, request["nice"])
    tempfile.tempdir = None
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if dynamo := sys.modules.get("torch._dynamo.config"):
        dynamo.disable = os.environ.get("TORCHDYNAMO_DISABLE") == "1"  # as that module does when it is imported
    for number in PASSED_ON:
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else usual)
    _end(_code_of(request["arguments"]))


def _code_of(arguments: Sequence[str]) -> int:
    """The exit code of the program, after it ran; what it raised is printed as python does."""
    try:
        run(arguments)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> NoReturn:
    """End as python does, but for taking every module apart: seconds here, for thousands that go with the process."""
    threading._shutdown()  # waits for threads, and ends executors
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or nobody reads it any more
            stream.flush()
    os._exit(code & 0xFF)


def run(arguments: Sequence[str]) -> None:
    """What ``python <arguments>`` does, options before the program (``-u``, ``-X name``) left out."""
    arguments = list(arguments)
    while arguments[0].startswith("-") and arguments[0] not in ("-c", "-m"):
        arguments = arguments[2 if arguments[0] in ("-X", "-W") else 1 :]
    first, *rest = arguments
    if first == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), sys.modules["__main__"].__dict__)
    elif first == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(first).resolve().parent)
        runpy.run_path(first, run_name="__main__")


def _move_up(file: int, least: int) -> int:
    """Out of the way of the numbers that files shall have."""
    moved = fcntl.fcntl(file, fcntl.F_DUPFD, least)
    os.close(file)
    return moved
