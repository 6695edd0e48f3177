"""Two configurations side by side: every setting by its dotted key, and which only say where files are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

ABSENT = "absent"
_PLACES = (  # differ between any two runs
    "dir", "path", "root", "experiment_name", "project_name", "folder", "py_executable", "fork_command"
)  # fmt: skip
_CONTENT = re.compile(r"(^|[._])(model[._]|tokenizer_|hf_config_|adapter[._])path$")  # what a run is made of


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every setting of a nested configuration as its dotted key and its value as text."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def is_place(key: str) -> bool:
    """Whether the setting says where a run's files are or what it is called, which differs between any two runs.

    A model, tokenizer or adapter is no place: where another one is read, another thing is trained.
    """
    return key.rsplit(".", 1)[-1].lower().endswith(_PLACES) and not _CONTENT.search(key)


def differences(*configs: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The settings that are not the same in all of `configs`, places apart: key to the value in each, as text.

    Sorted by key; a setting that a configuration does not have is ``absent`` there.
    """
    settings = [dict(flat(config)) for config in configs]
    values = {key: tuple(own.get(key, ABSENT) for own in settings) for key in sorted(set().union(*settings))}
    return {key: found for key, found in values.items() if len(set(found)) > 1 and not is_place(key)}
