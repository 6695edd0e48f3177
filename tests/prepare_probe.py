"""Runs `sdar_verl.prepare.prepare` for many configurations in one process that has chosen the CPU platform.

Usage: ``python prepare_probe.py <cases.json>``; the file maps a name to Hydra overrides. Prints one JSON object: by
name what the refusal says, or null when the run could start.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.errors import HydraException

import sdar_verl.train  # noqa: F401 - registers the search path of verl's configuration
from sdar_verl.errors import SdarError
from sdar_verl.prepare import prepare


def main() -> None:
    said = {}
    with initialize_config_module("sdar_verl.config", version_base=None):
        for name, overrides in json.loads(Path(sys.argv[1]).read_text()).items():
            try:
                prepare(compose("sdar", overrides))
                said[name] = None
            except (SdarError, HydraException) as error:
                said[name] = f"{type(error).__name__}: {error}"
    print("\n" + json.dumps(said))


if __name__ == "__main__":
    main()
