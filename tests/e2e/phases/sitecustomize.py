"""Python reads this at its start where its folder is on PYTHONPATH: verl's timers tell a file which phase they time."""

import os

import codetiming

_start, _stop = codetiming.Timer.start, codetiming.Timer.stop


def _tell(sign: str, name: str) -> None:
    with open(os.environ["PHASES_FILE"], "a") as file:
        file.write(f"{sign} {name}\n")


def start(self):
    _start(self)
    _tell("begin", self.name)


def stop(self):
    _tell("end", self.name)
    return _stop(self)


codetiming.Timer.start, codetiming.Timer.stop = start, stop
