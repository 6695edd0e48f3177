"""Makes ALFWorld games: ``python -m sdar_envs.alfworld.generate --help``.

Games are drawn from ALFWorld's floor plans and written in its own layout,
``<out>/<split>/<task>-<Object>-None-<Place>-<floor plan>/trial_<hash>/{game.tw-pddl, traj_data.json}``. The same split,
seed and knobs give the same bytes on every machine; ``<out>/<split>.manifest.json`` records them with a hash.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from sdar_envs.alfworld.gamefile import compose
from sdar_envs.alfworld.games import GAME_FILE, TASK_TYPES, TRAJ_FILE, find_games
from sdar_envs.alfworld.knobs import Knobs, usable_scenes
from sdar_envs.alfworld.sampling import sample_room
from sdar_envs.alfworld.scenes import ROOMS
from sdar_envs.alfworld.stock import StockEngine
from sdar_envs.base import EnvError, TaskRef

_VERSION = 1  # raise it when the same inputs give other games
_MAX_REPEATS = 200


def generate_games(
    out: str | os.PathLike[str],
    split: str,
    n: int,
    seed: int,
    knobs: Knobs | None = None,
    *,
    verify: int = 0,
    overwrite: bool = False,
) -> list[TaskRef]:
    """Write `n` games to ``<out>/<split>`` and return them sorted by id.

    A split that already lies there with the same inputs is kept as it is.

    Args:
        out: root folder, the later ``data_root``.
        split: name of the split; one that contains ``unseen`` uses the held-out floor plans.
        n: number of games; task types take turns.
        seed: any integer; splits draw from separate streams.
        knobs: difficulty; None is `Knobs()`.
        verify: how many of the games (evenly spread) to win by their walkthrough in ALFWorld's own engine.
        overwrite: replace a split that was made from other inputs.

    Raises:
        EnvError: bad inputs, knobs that leave no room, a split from other inputs, or a walkthrough that does not win.
    """
    knobs = knobs or Knobs()
    root = Path(out).expanduser()
    folder, manifest_file = root / split, root / f"{split}.manifest.json"
    if n < 1 or not split or Path(split).name != split:
        raise EnvError(f"cannot generate n={n} games for split {split!r}: n must be positive, split a plain name")
    inputs = json.loads(json.dumps({"version": _VERSION, "split": split, "n": n, "seed": seed, "knobs": asdict(knobs)}))
    if not overwrite and _present(folder, manifest_file, inputs):
        return find_games(root, split)
    partial = root / f".{split}.partial-{os.getpid()}"
    try:
        games = _write_all(partial, split, n, seed, knobs)
        _check_wins(partial, _spread(sorted(games), verify))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    manifest = {**inputs, "hash": _hash(games), "games": dict(sorted(games.items()))}
    manifest_file.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return find_games(root, split)


def _present(folder: Path, manifest_file: Path, inputs: dict[str, Any]) -> bool:
    if not folder.exists():
        return False
    try:
        found = json.loads(manifest_file.read_text(encoding="utf-8")) if manifest_file.is_file() else {}
    except ValueError as error:
        raise EnvError(f"{manifest_file} is damaged ({error}); remove it and {folder}, then generate again") from error
    on_disk = {path.parent.relative_to(folder).as_posix() for path in folder.glob(f"*/*/{GAME_FILE}")}
    if {key: found.get(key) for key in inputs} == inputs and on_disk == set(found["games"]):
        return True
    raise EnvError(f"{folder} holds games from other inputs; pass overwrite (--overwrite) to replace them")


def _write_all(root: Path, split: str, n: int, seed: int, knobs: Knobs) -> dict[str, str]:
    """Write `n` different games; returns id -> SHA-256 of the game file."""
    candidates = usable_scenes(split, knobs)
    rng = Random(f"{seed}/{split}")
    games: dict[str, str] = {}
    repeats = 0
    while len(games) < n:
        task_type = knobs.task_types[len(games) % len(knobs.task_types)]
        name, game, traj = compose(sample_room(task_type, candidates, knobs, rng), rng)
        if name in games:
            repeats += 1
            if repeats > _MAX_REPEATS:
                raise EnvError(f"the knobs allow only about {len(games)} different games; asked for {n}")
            continue
        trial = root / name
        trial.mkdir(parents=True)
        (trial / GAME_FILE).write_text(game, encoding="utf-8")
        (trial / TRAJ_FILE).write_text(traj, encoding="utf-8")
        games[name] = hashlib.sha256(game.encode()).hexdigest()
    return games


def _spread(names: Sequence[str], count: int) -> list[str]:
    count = min(count, len(names))
    return [names[i * len(names) // count] for i in range(count)]


def _check_wins(root: Path, names: Sequence[str]) -> None:
    engine = StockEngine() if names else None
    for name in names:
        assert engine is not None
        path = root / name / GAME_FILE
        engine.load(str(path))
        state = engine.reset()
        for command in json.loads(path.read_text(encoding="utf-8"))["walkthrough"]:
            if state.won or command not in state.admissible:
                raise EnvError(f"{name}: the walkthrough fails at {command!r}; report this as a generator bug")
            state = engine.step(command)
        if not state.won:
            raise EnvError(f"{name}: the walkthrough does not win; report this as a generator bug")


def _hash(games: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(sorted(games.items())).encode()).hexdigest()


def _parser() -> argparse.ArgumentParser:
    standard = Knobs()
    parser = argparse.ArgumentParser(prog="python -m sdar_envs.alfworld.generate", description="Make ALFWorld games.")
    parser.add_argument("out", help="root folder; games go to <out>/<split>")
    parser.add_argument("--split", default="train", help="a name with 'unseen' uses the held-out floor plans")
    parser.add_argument("-n", type=int, default=60, help="number of games")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--task-types", nargs="+", default=TASK_TYPES, metavar="TYPE", help=", ".join(TASK_TYPES))
    parser.add_argument("--rooms", nargs="+", default=tuple(ROOMS), metavar="ROOM", help=", ".join(ROOMS))
    parser.add_argument("--scenes", nargs="+", type=int, default=None, metavar="NUMBER", help="floor plans to use")
    span = {"nargs": 2, "type": int, "metavar": ("MIN", "MAX")}
    parser.add_argument("--receptacles", default=standard.receptacles, help="places in a room", **span)
    parser.add_argument("--objects", default=standard.objects, help="portable objects in a room", **span)
    parser.add_argument("--copies", type=int, default=standard.copies, help="most objects of one type")
    parser.add_argument("--no-closed-places", action="store_true", help="only the closed places that a task needs")
    parser.add_argument("--verify", type=int, default=0, metavar="K", help="win K games in ALFWorld's own engine")
    parser.add_argument("--overwrite", action="store_true", help="replace a split made from other inputs")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        knobs = Knobs(
            task_types=tuple(args.task_types),
            rooms=tuple(args.rooms),
            scenes=None if args.scenes is None else tuple(args.scenes),
            receptacles=tuple(args.receptacles),
            objects=tuple(args.objects),
            copies=args.copies,
            closed_places=not args.no_closed_places,
        )
        games = generate_games(
            args.out, args.split, args.n, args.seed, knobs, verify=args.verify, overwrite=args.overwrite
        )
    except EnvError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for task_type, count in sorted(Counter(game.task_type for game in games).items()):
        print(f"{count:6d} {task_type}")
    print(f"{len(games):6d} games in {Path(args.out) / args.split}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
