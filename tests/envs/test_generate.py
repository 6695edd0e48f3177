"""Generated games: the stock engine loads and wins them, seeds decide everything, knobs are respected."""

import json
import os
import subprocess
import sys
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sdar_envs.alfworld import pddl
from sdar_envs.alfworld.games import TASK_TYPES, find_games, read_game
from sdar_envs.alfworld.generate import generate_games, main
from sdar_envs.alfworld.knobs import Knobs, usable_scenes
from sdar_envs.alfworld.packages import import_alfworld
from sdar_envs.alfworld.sampling import APPLIANCES, sample_room
from sdar_envs.alfworld.scenes import contents, held_out, scenes
from sdar_envs.alfworld.stock import StockEngine
from sdar_envs.base import EnvError

SMALL = Knobs(receptacles=(3, 6), objects=(5, 6))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("games")
    generate_games(root, "train", 12, seed=1)
    generate_games(root, "valid_unseen", 6, seed=1, knobs=SMALL)
    return root


@pytest.mark.parametrize("split", ["train", "valid_unseen"])
def test_stock_engine_wins_every_game_by_its_walkthrough(root, split):
    games = find_games(root, split)
    assert {game.task_type for game in games} == set(TASK_TYPES)
    engine = StockEngine()
    for game in games:
        engine.load(game.path)
        state = engine.reset()
        for command in read_game(game.path)["walkthrough"]:
            assert not state.won
            assert command in state.admissible, (game.id, command)
            state = engine.step(command)
        assert state.won, game.id


def test_alfworlds_own_loader_finds_all_games(root):
    loader = import_alfworld("alfworld.agents.environment.alfred_tw_env").AlfredTWEnv
    config = {
        "env": {"goal_desc_human_anns_prob": 0.0, "task_types": [1, 2, 3, 4, 5, 6]},
        "dataset": {"data_path": str(root / "train"), "num_train_games": -1},
    }
    assert sorted(loader(config, "train").game_files) == sorted(game.path for game in find_games(root, "train"))


def test_layout_and_trajectory_data_are_alfworlds(root):
    for game in find_games(root, "train"):
        task, trial = game.id.split("/")
        task_type, thing, _, place, number = task.split("-")
        data = json.loads((root / "train" / game.id / "traj_data.json").read_text())
        assert (data["task_type"], data["task_id"], data["scene"]["scene_num"]) == (task_type, trial, int(number))
        params = data["pddl_params"]
        assert params["object_target"] == thing and not params["object_sliced"]
        assert place == (params["toggle_target"] or params["parent_target"])
        assert bool(params["toggle_target"]) == (task_type == "look_at_obj_in_light")
        sentence = data["turk_annotations"]["anns"][0]["task_desc"]
        assert f"Your task is to: {sentence}." in read_game(game.path)["grammar"]


def test_unseen_splits_use_other_floor_plans(root):
    def numbers(split):
        return {int(game.id.split("/")[0].rsplit("-", 1)[1]) for game in find_games(root, split)}

    assert all(held_out(number) for number in numbers("valid_unseen"))
    assert not any(held_out(number) for number in numbers("train"))
    assert {10, 219, 308, 424} <= {number for number in scenes() if held_out(number)}


def test_same_inputs_give_the_same_bytes_in_another_process(root, tmp_path):
    command = [sys.executable, "-m", "sdar_envs.alfworld.generate", str(tmp_path), "-n", "12", "--seed", "1"]
    for number in ("1", "2"):  # sets iterate in another order
        env = {**os.environ, "PYTHONHASHSEED": number}
        subprocess.run([*command, "--overwrite"], check=True, env=env, capture_output=True)
        assert (tmp_path / "train.manifest.json").read_bytes() == (root / "train.manifest.json").read_bytes()
        for game in find_games(root, "train"):
            assert (tmp_path / "train" / game.id / "game.tw-pddl").read_bytes() == open(game.path, "rb").read()


def test_games_are_those_of_the_recorded_version(root):
    """Other games from the same inputs need another `_VERSION`; then renew the hash below."""
    manifest = json.loads((root / "train.manifest.json").read_text())
    assert (manifest["version"], manifest["hash"][:16]) == (1, "f253370e93a0fdf8")


def test_seed_and_split_give_other_games(root, tmp_path):
    def ids(split, seed):
        return {game.id for game in generate_games(tmp_path, split, 12, seed, overwrite=True)}

    first = {game.id for game in find_games(root, "train")}
    assert not first & ids("train", 2)
    assert not first & ids("valid_seen", 1)


def test_a_split_is_kept_or_refused_but_never_mixed(root, tmp_path):
    games = generate_games(tmp_path, "train", 2, seed=0)
    stamp = os.stat(games[0].path).st_mtime_ns
    assert generate_games(tmp_path, "train", 2, seed=0) == games
    assert os.stat(games[0].path).st_mtime_ns == stamp
    with pytest.raises(EnvError, match="overwrite"):
        generate_games(tmp_path, "train", 2, seed=1)
    with pytest.raises(EnvError, match="overwrite"):
        generate_games(tmp_path, "train", 2, seed=0, knobs=SMALL)
    replaced = generate_games(tmp_path, "train", 2, seed=1, overwrite=True)
    assert find_games(tmp_path, "train") == replaced != games
    os.unlink(replaced[0].path)
    with pytest.raises(EnvError, match="overwrite"):
        generate_games(tmp_path, "train", 2, seed=1)
    assert sorted(os.listdir(tmp_path)) == ["train", "train.manifest.json"]


def test_verify_catches_a_walkthrough_that_does_not_win(tmp_path, monkeypatch):
    right = pddl.walkthrough
    generate_games(tmp_path, "good", 1, seed=0, verify=1)
    monkeypatch.setattr(pddl, "walkthrough", lambda room: right(room)[:-1])
    with pytest.raises(EnvError, match="does not win"):
        generate_games(tmp_path, "bad", 1, seed=0, verify=1)
    monkeypatch.setattr(pddl, "walkthrough", lambda room: ["go to nowhere 1"])
    with pytest.raises(EnvError, match="fails at 'go to nowhere 1'"):
        generate_games(tmp_path, "bad", 1, seed=0, verify=1)
    assert sorted(os.listdir(tmp_path)) == ["good", "good.manifest.json"]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**9),
    task_type=st.sampled_from(TASK_TYPES),
    receptacles=st.tuples(st.integers(3, 8), st.integers(0, 6)),
    objects=st.tuples(st.integers(2, 10), st.integers(0, 6)),
    copies=st.integers(1, 3),
    closed=st.booleans(),
    split=st.sampled_from(["train", "valid_unseen"]),
)
def test_rooms_obey_the_knobs_and_are_solvable(seed, task_type, receptacles, objects, copies, closed, split):
    knobs = Knobs(
        receptacles=(receptacles[0], sum(receptacles)), objects=(objects[0], sum(objects)), copies=copies,
        closed_places=closed,
    )  # fmt: skip
    room = sample_room(task_type, usable_scenes(split, knobs), knobs, Random(seed))
    portable = [thing for thing in room.things if thing.type != "DeskLamp"]
    assert receptacles[0] <= len(room.places) <= sum(receptacles)
    assert objects[0] <= len(portable) <= sum(objects)
    assert len({place.location for place in room.places}) == len(room.places)
    assert len({thing.id for thing in room.things}) == len(room.things)
    assert held_out(room.scene.number) == (split == "valid_unseen")
    kind = room.targets[0].type
    assert len(room.targets) == (2 if task_type == "pick_two_obj_and_place" else 1)
    assert [thing for thing in room.things if thing.type == kind] == list(room.targets)
    assert all(thing.place in room.places and thing.place.type != room.goal for thing in room.targets)
    for thing in portable:
        assert thing.type in contents()[thing.place.type]
        assert sum(other.type == thing.type for other in portable) <= max(copies, len(room.targets))
    if task_type in APPLIANCES:
        assert room.helper in room.places and room.helper.type == APPLIANCES[task_type][0] != room.goal
    if task_type == "look_at_obj_in_light":
        assert any(thing.type == "DeskLamp" and thing.place == room.helper for thing in room.things)
    else:
        goals = [place for place in room.places if place.type == room.goal]
        assert goals and kind in contents()[room.goal]
    if not closed:
        needed = {room.goal, room.helper.type if room.helper else ""}
        assert all(place.type in needed for place in room.places if place.closed)


def test_command_line_passes_every_knob(tmp_path, capsys):
    arguments = "--split small -n 4 --seed 3 --task-types pick_heat_then_place_in_recep --rooms Kitchen --scenes 1 2"
    arguments += " --receptacles 3 5 --objects 4 6 --copies 1 --no-closed-places --verify 1"
    assert main([str(tmp_path), *arguments.split()]) == 0
    assert "4 games" in capsys.readouterr().out
    knobs = json.loads((tmp_path / "small.manifest.json").read_text())["knobs"]
    assert knobs == {
        "task_types": ["pick_heat_then_place_in_recep"],
        "rooms": ["Kitchen"],
        "scenes": [1, 2],
        "receptacles": [3, 5],
        "objects": [4, 6],
        "copies": 1,
        "closed_places": False,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task-types", "juggle"], "pick_and_place_simple"),
        (["--rooms", "Attic"], "Kitchen"),
        (["--scenes", "99"], "floor plan"),
        (["--receptacles", "2", "6"], "3 <= fewest <= most"),
        (["--objects", "6", "5"], "fewest <= most"),
        (["--copies", "0"], "copies"),
        (["-n", "0"], "positive"),
        (["--split", "../x"], "plain name"),
        (["--receptacles", "60", "60"], "allow more"),
        (["--rooms", "Bathroom", "--task-types", "pick_heat_then_place_in_recep"], "allow more"),
        (["--scenes", "5", "--split", "train", "--rooms", "Bedroom"], "no floor plan is left"),
    ],
)
def test_bad_input_is_refused_with_a_hint(tmp_path, capsys, arguments, message):
    assert main([str(tmp_path / "out"), "-n", "2", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
