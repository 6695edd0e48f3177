"""The engine's packages without their side effects: on the home folder at import, on `sys.argv` at every load."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from sdar_envs.base import EnvError

_VARIABLE = "ALFWORLD_DATA"


def import_alfworld(module: str) -> ModuleType:
    """Import an `alfworld` module; raises `EnvError` when the package is missing.

    At its first import `alfworld` creates the folder that ``ALFWORLD_DATA`` names (in the home folder when it is not
    set). Nothing here needs that folder, so the variable points at the package itself meanwhile.
    """
    spec = find_spec("alfworld")
    if spec is None or not spec.submodule_search_locations:
        raise EnvError("the package alfworld is not installed: pip install alfworld==0.4.2 textworld==1.7.0")
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = next(iter(spec.submodule_search_locations))
    try:
        return import_module(module)
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


@contextmanager
def kept_arguments() -> Iterator[None]:
    """Around calls of the PDDL translator, which puts its own words into `sys.argv` and leaves them there."""
    arguments = sys.argv
    try:
        yield
    finally:
        sys.argv = arguments
