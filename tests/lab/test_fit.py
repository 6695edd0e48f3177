"""The fit command: cached by its inputs, repeatable, whole or absent."""

import argparse
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sdar_verl.cli import lab
from sdar_verl.lab import envs
from sdar_verl.lab.fit import fit, repeat
from sdar_verl.lab.record import config_of, fingerprint, read_record, weights_hash

QUICK = envs.get("alfworld").config.quick()


def run(*words):
    parser = argparse.ArgumentParser()
    lab.add_parser(parser.add_subparsers())
    args = parser.parse_args(["lab", *map(str, words)])
    return args.func(args)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab") / "model"
    assert run("fit", folder, "--quick") == 0
    return folder


def test_model_folder_is_complete_and_consistent(made):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(made), AutoTokenizer.from_pretrained(made)
    record = read_record(made)
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert model.config.vocab_size == len(tokenizer) == record["vocabulary"]
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert (record["fingerprint"], record["weights_sha256"]) == (fingerprint(QUICK), weights_hash(made))
    assert config_of(record) == QUICK
    assert record["last_loss"] < record["curve"][0]


def test_second_call_does_nothing_and_force_makes_the_same_bytes(made, capsys):
    before, stamp = weights_hash(made), (made / "model.safetensors").stat().st_mtime_ns
    assert run("fit", made, "--quick") == 0
    assert (made / "model.safetensors").stat().st_mtime_ns == stamp
    assert "is up to date" in capsys.readouterr().out
    assert run("fit", made, "--quick", "--force") == 0
    assert (made / "model.safetensors").stat().st_mtime_ns != stamp
    assert weights_hash(made) == before
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_the_beginning_can_be_repeated_from_the_record(made):
    recorded, repeated = repeat(made, say=lambda line: None)
    assert recorded == repeated and len(recorded) > 1


def test_other_inputs_make_another_model(made, tmp_path):
    other = fit(replace(QUICK, seed=1), tmp_path / "other", say=lambda line: None)
    assert read_record(other)["fingerprint"] != read_record(made)["fingerprint"]
    assert weights_hash(other) != weights_hash(made)


def test_fingerprint_sees_settings_skills_and_wording(monkeypatch):
    keys = {fingerprint(QUICK), fingerprint(replace(QUICK, batch=8)), fingerprint(replace(QUICK, skills="alfworld"))}
    monkeypatch.setattr("sdar_envs.alfworld.format._INTRO", "Another wording.")
    assert len(keys | {fingerprint(QUICK)}) == 4


def test_threads_are_given_back(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run("fit", tmp_path / "model", "--quick", "--set", "train_games=6")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_foreign_files_are_left_alone(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert run("fit", tmp_path, "--quick") == 1
    assert "notes.txt" in [path.name for path in tmp_path.iterdir()]
    assert "name an empty or a new folder" in capsys.readouterr().err


def test_unknown_setting_lists_the_known_ones(tmp_path, capsys):
    assert run("fit", tmp_path / "model", "--set", "speed=9") == 1
    assert "known: seed, train_games" in capsys.readouterr().err


def test_eval_of_a_folder_that_is_no_model(tmp_path, capsys):
    assert run("eval", tmp_path) == 1
    assert "sdar lab fit" in capsys.readouterr().err


def test_eval_reports_every_condition(made, tmp_path, capsys):
    assert run("eval", made, "--games", 6, "--json", tmp_path / "scores.json") == 0
    shown = capsys.readouterr().out
    assert all(f"\n{condition}" in shown for condition in ("right", "none", "wrong"))
    assert "(n = 6)" in shown and (tmp_path / "scores.json").is_file()
