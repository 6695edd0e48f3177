"""Index of the ALFWorld games on disk: the official layout, in a fixed order, broken games refused by name."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sdar_envs.base import EnvError, TaskRef
from sdar_envs.paths import expanded

TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
GAME_FILE = "game.tw-pddl"
TRAJ_FILE = "traj_data.json"
_UNSUPPORTED = ("movable", "Sliced")  # the engine's grammar cannot play these; ALFWorld skips them as well
_MAX_LISTED = 50


class BrokenGame(EnvError):
    """One game on disk cannot be played; the message says why."""


def split_folder(data_root: str | os.PathLike[str], split: str) -> Path:
    """The folder of one split: ``<root>/<split>``, or ``<root>/json_2.1.1/<split>`` as in ``$ALFWORLD_DATA``.

    `data_root` may use ``~`` and environment variables. Raises `EnvError` when there is no such folder.
    """
    root = expanded(data_root, "data_root")
    tried = [root / split, root / "json_2.1.1" / split]
    for folder in tried:
        if folder.is_dir():
            return folder
    raise EnvError(
        f"no ALFWorld split {split!r}: neither {tried[0]} nor {tried[1]} is a folder. "
        "Generate games there or point data_root at the official data."
    )


def find_games(
    data_root: str | os.PathLike[str], split: str, task_types: Collection[str] | None = None
) -> list[TaskRef]:
    """All playable games of a split, sorted by id (``<task folder>/<trial folder>``).

    Skipped without a word, as ALFWorld does: folders without a game file, games not marked solvable, and the
    task variants the engine cannot play (movable receptacles, sliced objects). Raises `EnvError` when a game is
    broken (all broken ones are listed) or when nothing is left.
    """
    wanted = _check_task_types(task_types)
    folder = split_folder(data_root, split)
    games: list[TaskRef] = []
    broken: list[str] = []
    skipped = 0
    for current, dirs, files in os.walk(folder):
        dirs.sort()
        if TRAJ_FILE not in files and GAME_FILE not in files:
            continue
        name = Path(current).relative_to(folder).as_posix()
        if any(word in name for word in _UNSUPPORTED) or GAME_FILE not in files:
            skipped += 1
            continue
        try:
            task_type = _read_task_type(Path(current))
            solvable = read_game(Path(current) / GAME_FILE).get("solvable", False)
        except BrokenGame as error:
            broken.append(f"{name}: {error}")
            continue
        if solvable and task_type in wanted:
            games.append(TaskRef(id=name, task_type=task_type, split=split, path=str(Path(current) / GAME_FILE)))
        else:
            skipped += 1
    if broken:
        more = [f"... and {len(broken) - _MAX_LISTED} more"] if len(broken) > _MAX_LISTED else []
        listing = "\n  ".join(sorted(broken)[:_MAX_LISTED] + more)
        raise EnvError(f"{len(broken)} broken games in {folder} (repair or remove them):\n  {listing}")
    if not games:
        raise EnvError(
            f"no playable games in {folder} ({skipped} skipped: other task types, unsolvable, without {GAME_FILE}, "
            "movable receptacles or sliced objects)"
        )
    return sorted(games, key=lambda game: game.id)


def read_game(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of one ``game.tw-pddl``: domain, grammar, problem, mostly ``solvable`` and ``walkthrough``.

    Raises `BrokenGame` when the file cannot be played.
    """
    data = _read_json(Path(path))
    for key in ("pddl_domain", "grammar", "pddl_problem"):
        if not isinstance(data.get(key), str) or not data[key].strip():
            raise BrokenGame(f"{GAME_FILE} has no {key!r}")
    if not isinstance(data.get("solvable", False), bool):
        raise BrokenGame(f"{GAME_FILE} does not say whether it is solvable, but {data['solvable']!r}")
    return data


def read_walkthrough(path: str | os.PathLike[str]) -> list[str]:
    """The commands with which a game's own file solves it; raises `BrokenGame` if it has none."""
    commands = read_game(path).get("walkthrough")
    if not isinstance(commands, list) or not commands or not all(isinstance(c, str) and c for c in commands):
        raise BrokenGame(f"{os.fspath(path)} has no walkthrough, so it cannot serve as a reference")
    return commands


def _read_task_type(folder: Path) -> str:
    if not (folder / TRAJ_FILE).is_file():
        raise BrokenGame(f"{TRAJ_FILE} is missing")
    task_type = _read_json(folder / TRAJ_FILE).get("task_type")
    if task_type not in TASK_TYPES:
        raise BrokenGame(f"{TRAJ_FILE} names the unknown task type {task_type!r}")
    return task_type


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BrokenGame(f"{path.name} cannot be read ({error.strerror})") from error
    except ValueError as error:  # not JSON, or not UTF-8
        raise BrokenGame(f"{path.name} is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise BrokenGame(f"{path.name} is not a JSON object")
    return data


def _check_task_types(task_types: Collection[str] | None) -> frozenset[str]:
    if task_types is None:
        return frozenset(TASK_TYPES)
    unknown = sorted(set(task_types) - set(TASK_TYPES)) if not isinstance(task_types, str) else [task_types]
    if unknown or not task_types:
        raise EnvError(f"task_types must be a list out of {', '.join(TASK_TYPES)}; got {task_types!r}")
    return frozenset(task_types)
