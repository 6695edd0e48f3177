"""Python reads this at the start of every process of a real run, for its folder is on PYTHONPATH.

A run is a dozen processes that import for most of their time, a quarter of which the garbage collector took. Where
``PHASES_FILE`` names a file, verl's timers tell it which phase they time.
"""

import gc
import os

gc.set_threshold(100_000, 50, 50)


def _tell_phases(path: str) -> None:
    import codetiming

    begin, end = codetiming.Timer.start, codetiming.Timer.stop

    def tell(sign: str, name: str) -> None:
        with open(path, "a") as file:
            file.write(f"{sign} {name}\n")

    def start(self):
        begin(self)
        tell("begin", self.name)

    def stop(self):
        tell("end", self.name)
        return end(self)

    codetiming.Timer.start, codetiming.Timer.stop = start, stop


if "PHASES_FILE" in os.environ:
    _tell_phases(os.environ["PHASES_FILE"])
