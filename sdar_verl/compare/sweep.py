"""What a comparison consists of: arms, seeds, and what all runs share. Read from a file or from a command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from sdar_verl.errors import ConfigError
from sdar_verl.runs.command import seeds as seed_settings

_OWN = {"sdar.run_dir", "trainer.default_local_dir", "trainer.experiment_name", "trainer.resume_mode"}
_OWN |= {key.lstrip("+") for key in seed_settings(0)}
_PANEL = "sdar.panel."


@dataclass(frozen=True)
class Arm:
    """A named set of Hydra overrides, none of them with a choice."""

    name: str
    overrides: tuple[str, ...]

    @property
    def folder(self) -> str:
        """The name as part of a path."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip("-.")


@dataclass(frozen=True)
class Lab:
    """The lab on a CPU: the shipped tiny model on generated games.

    Attributes:
        train_games: games to train on.
        panel: tasks of the panel.
        seed: of games and panel; the same for all runs.
    """

    train_games: int = 240
    panel: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        for own in fields(self):
            value, least = getattr(self, own.name), 0 if own.name == "seed" else 1
            if not _is_whole(value, least):
                raise ConfigError(f"lab.{own.name} must be a whole number from {least}, got {value!r}")


@dataclass(frozen=True)
class Sweep:
    """Arms times seeds.

    Attributes:
        arms: at least one, with different names.
        seeds: at least one, all different; every arm is trained with each.
        common: overrides of every run.
        lab: None for runs whose model and data the overrides name.
        about: what it asks, in a sentence.
        baseline: name of the arm that the others are compared with.
        until: last step that the page looks at, where arms are trained for different numbers of steps; None for all.
    """

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    common: tuple[str, ...] = ()
    lab: Lab | None = None
    about: str = ""
    baseline: str = field(default="")
    until: int | None = None

    def __post_init__(self) -> None:
        if not self.arms:
            raise ConfigError("a comparison needs at least one arm: --methods, --arm, or `arms` in its file")
        names, folders = [arm.name for arm in self.arms], [arm.folder for arm in self.arms]
        if len(set(folders)) < len(folders) or not all(folders):
            raise ConfigError(f"arms need names that differ in letters and digits, got {', '.join(map(repr, names))}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds must be different whole numbers from 0, got {list(self.seeds)}")
        if self.until is not None and not _is_whole(self.until, 1):
            raise ConfigError(f"until must be a step, a whole number from 1, got {self.until!r}")
        if not self.baseline:
            object.__setattr__(self, "baseline", names[0])
        if self.baseline not in names:
            raise ConfigError(f"there is no arm {self.baseline!r} to compare with; arms: {', '.join(names)}")
        for where, overrides in (("common", self.common), *((f"arm {arm.name}", arm.overrides) for arm in self.arms)):
            _refuse_own(where, overrides, panel_too=where != "common")

    @property
    def runs(self) -> list[tuple[Arm, int]]:
        """All runs in their order: every arm of a seed before the next seed, so that a part of them is balanced."""
        return [(arm, seed) for seed in self.seeds for arm in self.arms]


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def parse_seeds(value: Any) -> tuple[int, ...]:
    """``5`` is 0 to 4; ``0,3,7`` or a list are themselves."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")] if "," in value else value.strip()
    if isinstance(value, list):
        parts = value
    else:
        parts = list(range(int(value))) if str(value).isdigit() else [value]
    if isinstance(value, bool) or not parts or not all(str(part).isdigit() for part in parts):
        raise ConfigError(f"seeds are a number of them (5) or a list (0,3,7), got {value!r}")
    return tuple(int(part) for part in parts)


def expand(name: str, overrides: Sequence[str]) -> list[Arm]:
    """One arm per combination of the overrides' choices, in Hydra's syntax: ``a=1,5`` or ``a=range(1,4)``.

    A choice is added to the name as ``a=5`` (the last part of its key), a method as its bare name.

    Raises:
        ConfigError: an override is none, or has a choice that cannot be listed.
    """
    parsed = parse(overrides)
    choices = [_choices(own) for own in parsed]
    return [
        Arm(", ".join(part for part in (name, *(label for label, _ in picked)) if part), tuple(o for _, o in picked))
        for picked in product(*choices)
    ]


def parse(overrides: Sequence[str]) -> list[Override]:
    """Hydra's reading of each override; raises `ConfigError` with its words."""
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(f"no Hydra override: {str(error).splitlines()[0]}") from error


def from_file(path: Path) -> Sweep:
    """A comparison file: ``arms`` (name to list of overrides) and ``seeds``, and if wanted the other keys of `Sweep`.

    Raises:
        ConfigError: unreadable, a key is unknown or has a value of the wrong kind; the message says which.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    known = [own.name for own in fields(Sweep)]
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must be a mapping with the keys {', '.join(known)}")
    if unknown := sorted(map(str, content.keys() - set(known))):
        raise ConfigError(f"{path} has the unknown key {unknown[0]}; known: {', '.join(known)}")
    arms = content.get("arms")
    if not isinstance(arms, dict) or not arms:
        raise ConfigError(f"{path}: `arms` must map names to lists of overrides")
    return Sweep(
        arms=tuple(arm for name, own in arms.items() for arm in expand(str(name), _texts(path, f"arms.{name}", own))),
        seeds=parse_seeds(content.get("seeds", 5)),
        common=_texts(path, "common", content.get("common")),
        lab=_lab(path, content.get("lab")),
        about=str(content.get("about") or ""),
        baseline=str(content.get("baseline") or ""),
        until=content.get("until"),
    )


def _lab(path: Path, value: Any) -> Lab | None:
    if value is None or isinstance(value, bool):
        return Lab() if value else None
    known = [own.name for own in fields(Lab)]
    if not isinstance(value, Mapping) or set(value) - set(known):
        raise ConfigError(f"{path}: `lab` must be true, or a mapping with keys of {', '.join(known)}")
    return Lab(**value)


def _texts(path: Path, key: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise ConfigError(f"{path}: `{key}` must be a list of overrides such as method=sdar, got {value!r}")
    return tuple(value)


def _choices(own: Override) -> list[tuple[str, str]]:
    if not own.is_sweep_override():
        return [("", own.input_line or "")]
    key, short = own.get_key_element(), re.split(r"[./]", own.key_or_group)[-1]
    try:
        values = list(own.sweep_string_iterator())
    except (HydraException, TypeError) as error:
        raise ConfigError(f"{own.input_line}: only choices (a=1,5) and ranges (a=range(1,4)) make arms") from error
    return [(v if key == "method" else f"{short}={v}", f"{key}={v}") for v in values]


def _refuse_own(where: str, overrides: Sequence[str], *, panel_too: bool) -> None:
    for own in parse(overrides):
        if own.is_sweep_override():
            raise ConfigError(f"{where}: {own.input_line} is a choice; a choice makes arms, so put it there")
        key = own.key_or_group
        if key in _OWN and own.type is not OverrideType.DEL:
            raise ConfigError(f"{where}: {key} is set by the comparison itself, for every run")
        if panel_too and key.startswith(_PANEL):
            raise ConfigError(f"{where}: {key} changes the panel, and different panels cannot be compared")
