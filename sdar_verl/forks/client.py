"""``python -I -S client.py SOCKET <arguments of python>``: that command line, in a process that need not import.

It asks the server at SOCKET (`server`) to fork, hands over its arguments, environment, folder, niceness and open
files, and stays for as long as the forked process lives: it ends with the same status, passes signals on, and when it
is killed, so is the other. Where the server does not answer or refuses, python itself takes its place.

Only the standard library, and little of it: this file's start is what is saved elsewhere.
"""

import json
import os
import select
import signal
import socket
import sys
import time

REFUSED, ORPHAN_SECONDS, MAX_FILES = 0, 10.0, 64
NAME = "fork"  # the forked process' id follows; 15 characters in all
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ask(address: str, arguments: list[str]) -> tuple[socket.socket, int] | None:
    """The connection and the forked process' id; None where the server is gone or refuses."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        files = [file for file in sorted(map(int, os.listdir("/proc/self/fd"))) if _stays_open(file)][:MAX_FILES]
        request = json.dumps(
            {
                "arguments": arguments,
                "environment": dict(os.environ),
                "folder": os.getcwd(),
                "nice": os.getpriority(os.PRIO_PROCESS, 0),
                "files": files,
                "ignored": [number for number in PASSED_ON if signal.getsignal(number) is signal.SIG_IGN],
            }
        ).encode()
        connection.connect(address)
        socket.send_fds(connection, [len(request).to_bytes(8, "big")], files)
        connection.sendall(request)
        process = int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "big")  # nothing: the server ended
    except OSError:
        process = REFUSED
    if process == REFUSED:
        connection.close()
        return None
    return connection, process


def wait(connection: socket.socket, process: int) -> int:
    """The forked process' wait status; SystemExit when nobody is left to tell it."""
    parent, orphaned = os.getppid(), None
    with open("/proc/self/comm", "w") as name:  # for people who look at the processes, and for the tests
        name.write(f"{NAME} {process}")
    for number in PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: _send(process, number))
    while True:
        if select.select([connection], [], [], 1.0)[0]:
            answer = connection.recv(8, socket.MSG_WAITALL)
            if answer:
                return int.from_bytes(answer, "big")
            while _send(process, 0):  # the server is gone, its children are not
                time.sleep(0.2)
            sys.exit(1)
        if os.getppid() != parent:
            orphaned = orphaned or time.monotonic()
            if time.monotonic() > orphaned + ORPHAN_SECONDS:
                sys.exit("the process that started this one is gone")  # the server kills what it had forked


def end_like(status: int) -> None:
    """End as a process with this wait status did."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _stays_open(file: int) -> bool:
    try:
        return file < 3 or os.get_inheritable(file)
    except OSError:  # the listing's own
        return False


def _send(process: int, number: int) -> bool:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    found = ask(sys.argv[1], sys.argv[2:])
    if found is None:
        os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
    end_like(wait(*found))
