"""`sdar methods` says of each method what its configuration says."""

import json

import pytest

from sdar_verl import methods
from sdar_verl.cli import main as cli

ELEVEN = "gigpo grpo grpo_opsd opd opsd rlsd sdar sdft sdpo skill_grpo skill_sd".split()


@pytest.fixture(scope="module")
def every():
    return {name: methods.parts(name) for name in methods.names()}


def test_the_eleven_methods_ship():
    assert methods.names() == ELEVEN


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("grpo", "teacher", "–"),
        ("gigpo", "enters", "step-level advantages, weight 1"),
        ("skill_grpo", "student", "skills in training"),
        ("sdar", "weighed", "gap gate"),
        ("sdar", "weights", "policy"),
        ("skill_sd", "compared", "k3"),
        ("rlsd", "enters", "advantage (evidence), λ 0.5, linear_decay"),
        ("opsd", "compared", "whole distribution, forward KL"),
        ("opsd", "weights", "initial"),
        ("sdpo", "teacher", "demonstration, else feedback"),
        ("sdpo", "weights", "moving average, rate 0.05"),
        ("opd", "weights", "another model"),
        ("opd", "teacher", "–"),
    ],
)
def test_parts_are_read_from_the_configuration(every, name, part, said):
    assert getattr(every[name], part) == said


def test_every_method_says_what_it_is(every):
    assert all(len(parts.about) > 30 for parts in every.values())


def test_the_table_and_one_file(capsys):
    assert cli.main(["methods"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown[1:12]] == ELEVEN
    assert cli.main(["methods", "sdpo"]) == 0
    assert "success" in capsys.readouterr().out
    assert cli.main(["methods", "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == ELEVEN


def test_an_unknown_method_lists_the_known_ones(capsys):
    assert cli.main(["methods", "sdarr"]) == 1
    error = capsys.readouterr().err
    assert "'sdarr'" in error and all(name in error for name in ELEVEN)
