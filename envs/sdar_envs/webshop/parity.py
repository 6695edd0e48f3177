"""Checks this shop against recordings of the original: ``python -m sdar_envs.webshop.parity --help``.

Recordings are JSON lines. An episode: ``{"goal_index", "reset_observation", "steps": [{"has_search_bar",
"clickables", "action", "observation", "reward", "done"}]}``, bar and clickables as they were before the action. A
search: ``{"query", "top50": [product id, ...]}``. A goal: ``{"index", "asin", "instruction_text", "attributes",
"price_upper", "goal_options"}``. The original must have been loaded with ``--seed``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdar_envs.base import EnvError
from sdar_envs.webshop.goals import KINDS, GoalBook
from sdar_envs.webshop.session import Session
from sdar_envs.webshop.shop import RESULTS, Shop

FIELDS = ("has_search_bar", "clickables", "observation", "reward", "done")


class Tally:
    """Counts of equal and different values by name, with the first differences in words."""

    def __init__(self, shown: int = 5) -> None:
        self.equal: Counter[str] = Counter()
        self.different: Counter[str] = Counter()
        self.examples: list[str] = []
        self._shown = shown

    def add(self, name: str, where: str, here: Any, recorded: Any) -> None:
        if here == recorded:
            self.equal[name] += 1
            return
        self.different[name] += 1
        if len(self.examples) < self._shown:
            self.examples.append(f"{name}, {where}:\n  here     {_cut(here)}\n  recorded {_cut(recorded)}")

    def lines(self) -> list[str]:
        names = sorted(set(self.equal) | set(self.different))
        rows = [(name, self.equal[name], self.equal[name] + self.different[name]) for name in names]
        return [f"{name:16} {equal:7d} of {total:7d} equal ({equal / total:.2%})" for name, equal, total in rows]


def check_episodes(shop: Shop, book: GoalBook, episodes: Sequence[Mapping[str, Any]], tally: Tally) -> None:
    """Replay recorded actions and compare what the agent sees, may click and gets at every step."""
    for number, episode in enumerate(episodes):
        session = Session(shop, book, book[episode["goal_index"]])
        tally.add("reset", f"episode {number}", session.observation, episode["reset_observation"])
        for place, step in enumerate(episode["steps"]):
            if session.score is not None:
                raise EnvError(f"episode {number} goes on after the purchase; record episodes that end there")
            before = {"has_search_bar": session.has_search_bar, "clickables": session.clickables}
            session.act(step["action"])
            done = session.score is not None
            reward = session.score.total if session.score else 0.0
            here = {**before, "observation": session.observation, "reward": reward, "done": done}
            for name in FIELDS:
                tally.add(name, f"episode {number} step {place} {step['action']!r}", here[name], step[name])


def check_searches(shop: Shop, searches: Sequence[Mapping[str, Any]], tally: Tally) -> None:
    """Compare the order of all found products."""
    for one in searches:
        found = [shop.product(number).asin for number in shop.search(one["query"].lower())][:RESULTS]
        tally.add("search order", repr(one["query"]), found, one["top50"])


def check_goals(book: GoalBook, goals: Sequence[Mapping[str, Any]], tally: Tally) -> None:
    """Compare goals, and their number."""
    for one in goals:
        goal = book[one["index"]]
        wanted = one["goal_options"]
        options = dict(goal.options) if isinstance(wanted, dict) else list(goal.options)
        here = (goal.asin, goal.text, list(goal.attributes), goal.price_cap, options)
        recorded = tuple(one[key] for key in ("asin", "instruction_text", "attributes", "price_upper"))
        tally.add("goals", f"goal {one['index']}", here, (*recorded, wanted))


def read_lines(path: str | Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file; raises `EnvError` where it is none."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise EnvError(f"{path} line {number} is not JSON: {error}") from error
    except OSError as error:
        raise EnvError(f"{path} cannot be read: {error.strerror}") from error


def _cut(value: Any, most: int = 300) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sdar_envs.webshop.parity", description=__doc__.split("\n")[0])
    parser.add_argument("data_root", help="the catalogue that the recordings were made with")
    parser.add_argument("--episodes", help="recorded episodes (JSON lines)")
    parser.add_argument("--searches", help="recorded searches (JSON lines)")
    parser.add_argument("--goals", help="recorded goals (JSON lines)")
    parser.add_argument("--kind", default="synthetic", choices=KINDS)
    parser.add_argument("--seed", type=int, default=0, help="of the original's prices and price caps (%(default)s)")
    parser.add_argument("--shuffle-seed", type=int, default=None, help="of the original's goal order (default: --seed)")
    parser.add_argument("--cache-dir", default=None)
    parser.add_argument("--show", type=int, default=5, help="differences to show (%(default)s)")
    args = parser.parse_args(argv)
    tally = Tally(args.show)
    try:
        shop = Shop(args.data_root, args.cache_dir)
        book = shop.goals(args.kind, args.seed, args.seed if args.shuffle_seed is None else args.shuffle_seed)
        if args.goals:
            check_goals(book, list(read_lines(args.goals)), tally)
        if args.episodes:
            check_episodes(shop, book, list(read_lines(args.episodes)), tally)
        if args.searches:
            check_searches(shop, list(read_lines(args.searches)), tally)
        if not tally.lines():
            raise EnvError("nothing to check: give --episodes, --searches or --goals")
    except KeyError as error:
        print(f"error: a recording lacks {error}", file=sys.stderr)
        return 2
    except EnvError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join([*tally.lines(), *tally.examples]))
    return 1 if tally.different else 0


if __name__ == "__main__":
    sys.exit(main())
