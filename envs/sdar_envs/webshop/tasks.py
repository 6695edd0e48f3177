"""Splits: which goals are for training, for choosing, for testing.

A task's id is ``<kind>/<seed of prices and caps>-<seed of the order>/<number of the goal in that order>``, so an id
says all there is to know about a goal, whatever the splits are.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from sdar_envs.base import EnvError, TaskRef
from sdar_envs.webshop.prepare import CATEGORIES, MANIFEST
from sdar_envs.webshop.shop import Shop

CANONICAL_SHUFFLE = 233
SCHEMES = ("canonical", "verl_agent")
SPLITS = {"canonical": ("train", "eval", "test"), "verl_agent": ("train", "eval")}
_VERL_AGENT_TEST = 500
_VERL_AGENT_VALIDATION_SEED = 1000
_ID = re.compile(r"(\w+)/(\d{1,9})-(\d{1,9})/(\d{1,9})")


def find_tasks(
    shop: Shop,
    split: str,
    *,
    scheme: str = "canonical",
    kind: str = "synthetic",
    seed: int = 0,
    sizes: tuple[int, int] = (500, 1000),
    most: int | None = None,
    workers: tuple[int, int] = (16, 128),
    task_types: Collection[str] | None = None,
) -> list[TaskRef]:
    """The tasks of a split, in goal order.

    ``canonical``: one order of all goals (seed 233, as in WebShop); the first `sizes[0]` are ``test``, the next
    `sizes[1]` ``eval``, the rest ``train``. ``verl_agent``: every worker has prices, caps and an order of its own;
    workers with seeds `seed`... train on goals 500 and up of their order, workers with seeds `seed` + 1000... validate
    on goals 0 to 499 of theirs. The second only reproduces published runs: nearly all its validation goals are also
    training goals.

    Args:
        seed: of prices and price caps; of the first worker.
        most: keep only the first so many training goals (they are in random order); None keeps all.
        workers: with ``verl_agent``, how many train and how many validate.
        task_types: product categories to keep; None keeps all.

    Raises:
        EnvError: unknown names, or no goal is left.
    """
    if scheme not in SCHEMES:
        raise EnvError(f"unknown env.webshop.split {scheme!r}; known: {', '.join(SCHEMES)}")
    if split not in SPLITS[scheme]:
        raise EnvError(f"unknown split {split!r}; with split={scheme} there are: {', '.join(SPLITS[scheme])}")
    unknown = sorted(set(task_types or ()) - set(CATEGORIES)) if not isinstance(task_types, str) else [task_types]
    if unknown or (task_types is not None and not task_types):
        raise EnvError(f"task_types must be a list out of {', '.join(CATEGORIES)}; got {task_types!r}")
    tasks: list[TaskRef] = []
    manifest = str(shop.prepared.folder / MANIFEST)  # a run's data hash reads it: it names the catalogue's content
    for goal_seed, shuffle_seed, first, last in _ranges(split, scheme, seed, sizes, workers):
        book = shop.goals(kind, goal_seed, shuffle_seed)
        for index in range(first, len(book) if last is None else min(last, len(book))):
            category = book.category(index)
            if split == "train" and most is not None and len(tasks) >= most:
                break
            if task_types is None or category in task_types:
                tasks.append(TaskRef(f"{kind}/{goal_seed}-{shuffle_seed}/{index}", category, split, manifest))
    if not tasks:
        goals = len(shop.goals(kind, seed, CANONICAL_SHUFFLE))
        raise EnvError(
            f"no {kind} goals are left for split {split!r}: the catalogue has {goals}. Use a larger one, other "
            "goals, env.webshop.test_size and eval_size, or more task_types"
        )
    return tasks


def read_task_id(name: str) -> tuple[str, int, int, int]:
    """Kind, seed of prices and caps, seed of the order, and number of the goal; raises `EnvError` for anything else."""
    match = _ID.fullmatch(name)
    if match is None:
        raise EnvError(f"{name!r} is no WebShop task; ids look like synthetic/0-233/1500")
    return match[1], int(match[2]), int(match[3]), int(match[4])


def _ranges(
    split: str, scheme: str, seed: int, sizes: tuple[int, int], workers: tuple[int, int]
) -> list[tuple[int, int, int, int | None]]:
    """(seed of prices and caps, seed of the order, first goal, end) of each part of a split."""
    if scheme == "canonical":
        test, both = sizes[0], sizes[0] + sizes[1]
        first, last = {"test": (0, test), "eval": (test, both), "train": (both, None)}[split]
        return [(seed, CANONICAL_SHUFFLE, first, last)]
    if split == "train":
        seeds, (first, last) = range(seed, seed + workers[0]), (_VERL_AGENT_TEST, None)
    else:
        start = seed + _VERL_AGENT_VALIDATION_SEED
        seeds, (first, last) = range(start, start + workers[1]), (0, _VERL_AGENT_TEST)
    return [(one, one, first, last) for one in seeds]
