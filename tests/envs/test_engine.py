"""The fast engine against the stock one, step by step, on generated games of all task types and both dialects."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdar_envs.alfworld.engine import make_engine
from sdar_envs.alfworld.fast import FastEngine
from sdar_envs.alfworld.games import read_game
from sdar_envs.alfworld.generate import generate_games
from sdar_envs.alfworld.native import loadable_size
from sdar_envs.alfworld.translation import GameCache
from sdar_envs.base import EnvError


@pytest.fixture(scope="module")
def games(tmp_path_factory):
    return generate_games(tmp_path_factory.mktemp("games"), "train", 12, seed=11)


@pytest.fixture(scope="module")
def stock():
    return make_engine("stock")


@pytest.fixture
def fast():
    return make_engine("fast")


def assert_same_play(stock, fast, path, commands):
    """Both engines show the same at every step; `commands` maps a state to the next command, None ends."""
    for engine in (stock, fast):
        engine.load(path)
    expected, got = stock.reset(), fast.reset()
    steps = 0
    assert got == expected
    while (command := commands(expected)) is not None:
        expected, got = stock.step(command), fast.step(command)
        assert got == expected, (path, command)
        steps += 1
    return expected, steps


def wanderer(seed, steps):
    """Random admissible commands that prefer doing over going, sometimes one that is not understood."""
    rng = random.Random(seed)
    left = iter(range(steps))

    def choose(state):
        if next(left, None) is None:
            return None
        if rng.random() < 0.1:
            return rng.choice(["", "fly away", " look ", "go to nowhere 1", state.admissible[0].upper(), "take {o}"])
        doing = [c for c in state.admissible if not c.startswith(("go to", "help", "look", "inventory"))]
        return rng.choice(doing if doing and rng.random() < 0.6 else list(state.admissible))

    return choose


def test_random_play_shows_the_same_at_every_step(games, stock, fast):
    for game in games[::2]:
        assert_same_play(stock, fast, game.path, wanderer(game.id, 25))


def test_walkthroughs_show_the_same_and_win(games, stock, fast):
    for game in games[1::2]:
        walkthrough = iter(read_game(game.path)["walkthrough"])
        last, steps = assert_same_play(stock, fast, game.path, lambda state, plan=walkthrough: next(plan, None))
        assert last.won and steps >= 2


def test_every_generated_walkthrough_wins(games, fast):
    for game in games:
        fast.load(game.path)
        state = fast.reset()
        for command in read_game(game.path)["walkthrough"]:
            assert not state.won and command in state.admissible
            state = fast.step(command)
        assert state.won, game.id


def test_the_older_dialect_plays_the_same(games, stock, fast, tmp_path):
    """Older official games say ``put X in/on Y`` where newer ones say ``move X to Y``."""
    game = next(game for game in games if game.task_type == "pick_and_place_simple")
    data = read_game(game.path)
    assert '"move {o} to {r}"' in data["grammar"]
    data["grammar"] = data["grammar"].replace('"move {o} to {r}"', '"put {o} in/on {r}"')
    path = tmp_path / "game.tw-pddl"
    path.write_text(json.dumps(data))
    plan = [f"put {c[5:].replace(' to ', ' in/on ')}" if c.startswith("move ") else c for c in data["walkthrough"]]
    plan = iter(plan)
    last, _ = assert_same_play(stock, fast, str(path), lambda state: next(plan, None))
    assert last.won
    assert_same_play(stock, fast, str(path), wanderer(3, 15))


def test_a_reset_forgets_everything(games, fast):
    fast.load(games[0].path)
    first = fast.reset()
    after = [fast.step(command) for command in read_game(games[0].path)["walkthrough"]]
    assert fast.reset() == first
    assert [fast.step(command) for command in read_game(games[0].path)["walkthrough"]] == after


def test_engines_of_one_process_do_not_disturb_each_other(games):
    """The planner library keeps its state in globals, and prepared games are shared between engines."""
    alone = [play_alone(game.path) for game in games[:3]]
    engines = [FastEngine() for _ in range(6)]
    states = []
    for number, engine in enumerate(engines):
        engine.load(games[number % 3].path)
        states.append([engine.reset()])
    plans = [read_game(games[number % 3].path)["walkthrough"] for number in range(6)]
    for turn in range(max(map(len, plans))):
        for engine, plan, seen in zip(engines, plans, states, strict=True):
            if turn < len(plan):
                seen.append(engine.step(plan[turn]))
    assert states == alone + alone


def play_alone(path):
    engine = FastEngine()
    engine.load(path)
    return [engine.reset()] + [engine.step(command) for command in read_game(path)["walkthrough"]]


def test_prepared_games_are_bounded_and_the_oldest_goes():
    cache, made = GameCache(2), []

    def get(path):
        return cache.get(path, lambda: made.append(path) or path)

    assert [get(p) for p in ("a", "b", "a", "c", "a", "b")] == ["a", "b", "a", "c", "a", "b"]
    assert made == ["a", "b", "c", "b"]


def test_an_unknown_engine_is_refused_with_the_known_ones():
    with pytest.raises(EnvError, match="unknown engine 'turbo'; known: fast, stock"):
        make_engine("turbo")


def test_a_failed_load_leaves_no_game_to_play(games, fast, tmp_path):
    fast.load(games[0].path)
    broken = tmp_path / "game.tw-pddl"
    broken.write_text(json.dumps({**read_game(games[0].path), "pddl_problem": "(define"}))
    with pytest.raises(EnvError, match="cannot be translated"):
        fast.load(str(broken))
    with pytest.raises(EnvError, match="load must come before"):
        fast.reset()


def test_only_the_loadable_part_of_the_library_is_copied():
    from fast_downward.interface import DOWNWARD_LIB_PATH

    size = loadable_size(DOWNWARD_LIB_PATH)
    assert 2**19 < size <= os.path.getsize(DOWNWARD_LIB_PATH)
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:libdownward" in line]
    assert mapped, "engines of this process run from anonymous memory"


@given(start=st.sampled_from([b"", b"\x7fELF\x02\x01"]), data=st.binary(max_size=200))
def test_any_file_has_a_loadable_size(start, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("elf") / "lib"
    path.write_bytes(start + data)
    size = loadable_size(str(path))
    assert size <= len(start + data) and (start or size == len(data))


def test_engines_leave_the_home_and_temp_folders_alone(games, tmp_path):
    code = (
        "import sys; from sdar_envs.alfworld.engine import make_engine\n"
        "for kind in ('fast', 'stock'):\n"
        "    engine = make_engine(kind); engine.load(sys.argv[1]); engine.reset()\n"
        "print('torch' in sys.modules, 'verl' in sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "ALFWORLD_DATA"}
    environment |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code, games[0].path], env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["False", "False"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["fast", "stock"])
def test_the_programs_arguments_stay_as_they_were(games, kind, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program", "--flag"])
    engine = make_engine(kind)
    engine.load(games[5].path)
    engine.reset()
    assert sys.argv == ["program", "--flag"]


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("pddl_problem", "(:goal", "(:gaol"),
        ("pddl_problem", "(:init", "(:init (nosuchpredicate a)"),
        ("pddl_domain", ":effect", ":affect"),
        ("grammar", "action GotoLocation {", "action GotoLocation"),
        ("grammar", '"intro"', '"outro" : [], "intro"x'),
    ],
)
def test_damaged_games_are_refused_by_name(games, fast, tmp_path, key, old, new):
    data = read_game(games[0].path)
    assert old in data[key]
    path = tmp_path / "damaged.tw-pddl"
    path.write_text(json.dumps({**data, key: data[key].replace(old, new, 1)}))
    with pytest.raises(EnvError, match=r"damaged\.tw-pddl cannot be translated"):
        fast.load(str(path))
    fast.load(games[0].path)
    assert not fast.reset().won
