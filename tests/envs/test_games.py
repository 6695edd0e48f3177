"""The index of games on disk: layout, order, what is skipped and what is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdar_envs.alfworld.games import TASK_TYPES, find_games, read_walkthrough
from sdar_envs.base import EnvError, TaskRef

GAME = {"pddl_domain": "d", "grammar": "g", "pddl_problem": "p", "solvable": True, "walkthrough": []}


def put(split, name, game=GAME, traj=None):
    folder = split / name
    folder.mkdir(parents=True)
    traj = {"task_type": name.split("-")[0]} if traj is None else traj
    for file, content in (("game.tw-pddl", game), ("traj_data.json", traj)):
        if content is not False:
            (folder / file).write_text(content if isinstance(content, str) else json.dumps(content))
    return name


def simple(number):
    return f"pick_and_place_simple-Mug-None-Shelf-{number}/trial_{number}"


def test_games_come_sorted_with_type_split_and_path(tmp_path):
    names = [put(tmp_path / "train", f"{kind}-Mug-None-Shelf-{n}/trial_{n}") for n in (9, 10) for kind in TASK_TYPES]
    games = find_games(tmp_path, "train")
    assert [game.id for game in games] == sorted(names)
    path = str(tmp_path / "train" / games[0].id / "game.tw-pddl")
    assert games[0] == TaskRef(games[0].id, games[0].id.split("-")[0], "train", path)


@given(numbers=st.lists(st.integers(0, 400), min_size=1, max_size=8, unique=True))
def test_the_order_does_not_depend_on_the_order_of_creation(numbers, tmp_path_factory):
    ids = []
    for order in (numbers, numbers[::-1]):
        root = tmp_path_factory.mktemp("games")
        for number in order:
            put(root / "train", simple(number))
        ids.append([game.id for game in find_games(root, "train")])
    assert ids[0] == ids[1] == sorted(simple(number) for number in numbers)


def test_the_official_data_folder_is_found_through_the_environment(tmp_path, monkeypatch):
    put(tmp_path / "json_2.1.1" / "valid_seen", simple(1))
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    assert [game.id for game in find_games("$ALFWORLD_DATA", "valid_seen")] == [simple(1)]
    monkeypatch.delenv("ALFWORLD_DATA")
    with pytest.raises(EnvError, match="environment variable that is not set"):
        find_games("$ALFWORLD_DATA", "valid_seen")


def test_what_the_engine_cannot_play_is_skipped(tmp_path):
    split = tmp_path / "movable" / "train"  # the word in the path above the split means nothing
    put(split, simple(1))
    put(split, "pick_and_place_with_movable_recep-Mug-Bowl-Shelf-1/trial_1")
    put(split, "pick_and_place_simple-AppleSliced-None-Shelf-1/trial_1", game="not even JSON")
    put(split, simple(2), game=False)
    put(split, simple(3), game={**GAME, "solvable": False})
    put(split, simple(4), game={key: value for key, value in GAME.items() if key != "solvable"})
    (split / "notes.txt").write_text("not a game")
    assert [game.id for game in find_games(tmp_path / "movable", "train")] == [simple(1)]


def test_all_broken_games_are_listed_at_once(tmp_path):
    split = tmp_path / "train"
    put(split, simple(0))
    broken = {
        simple(1): ({"game": "{"}, "game.tw-pddl is not JSON"),
        simple(2): ({"game": [1]}, "game.tw-pddl is not a JSON object"),
        simple(3): ({"game": {k: v for k, v in GAME.items() if k != "grammar"}}, "has no 'grammar'"),
        simple(4): ({"game": {**GAME, "pddl_problem": " "}}, "has no 'pddl_problem'"),
        simple(5): ({"game": {**GAME, "solvable": "yes"}}, "whether it is solvable, but 'yes'"),
        simple(6): ({"traj": {"task_type": "juggle"}}, "unknown task type 'juggle'"),
        simple(7): ({"traj": False}, "traj_data.json is missing"),
        simple(8): ({"traj": "nonsense"}, "traj_data.json is not JSON"),
    }
    for name, (content, _) in broken.items():
        put(split, name, **content)
    with pytest.raises(EnvError, match="8 broken games") as caught:
        find_games(tmp_path, "train")
    for name, (_, reason) in broken.items():
        assert any(name in line and reason in line for line in str(caught.value).splitlines()), name
    assert simple(0) not in str(caught.value)


def test_a_long_list_of_broken_games_is_cut_with_a_count(tmp_path):
    for number in range(53):
        put(tmp_path / "train", simple(number), game="{")
    with pytest.raises(EnvError, match="53 broken games") as caught:
        find_games(tmp_path, "train")
    assert "and 3 more" in str(caught.value)


def test_an_unreadable_game_is_broken(tmp_path):
    put(tmp_path / "train", simple(1), game=False)
    (tmp_path / "train" / simple(1) / "game.tw-pddl").symlink_to(tmp_path / "gone")
    with pytest.raises(EnvError, match="cannot be read"):
        find_games(tmp_path, "train")


def test_task_types_filter(tmp_path):
    for kind in TASK_TYPES:
        put(tmp_path / "train", f"{kind}-Mug-None-Shelf-1/trial_1")
    wanted = ["pick_heat_then_place_in_recep", "look_at_obj_in_light"]
    assert {game.task_type for game in find_games(tmp_path, "train", wanted)} == set(wanted)


@pytest.mark.parametrize("types", [["pick"], [], "pick_and_place_simple"])
def test_bad_task_types_are_refused_with_the_known_ones(tmp_path, types):
    put(tmp_path / "train", simple(1))
    with pytest.raises(EnvError, match="pick_two_obj_and_place"):
        find_games(tmp_path, "train", types)


@pytest.mark.parametrize("root", ["", "{tmp}/nowhere"])
def test_a_missing_folder_is_refused(tmp_path, root):
    with pytest.raises(EnvError, match="data_root"):
        find_games(root.format(tmp=tmp_path), "train")


def test_a_folder_without_games_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(EnvError, match="no playable games"):
        find_games(tmp_path, "train")


@pytest.mark.parametrize("walkthrough", [None, [], "look", [1], [""]])
def test_a_game_without_walkthrough_is_no_reference(tmp_path, walkthrough):
    put(tmp_path, simple(1), {**GAME, "walkthrough": walkthrough})
    with pytest.raises(EnvError, match="has no walkthrough"):
        read_walkthrough(tmp_path / simple(1) / "game.tw-pddl")
