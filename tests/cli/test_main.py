"""The console command finds its subcommands, stays light and refuses what it does not know."""

import importlib
import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from sdar_verl.cli import main as cli

HEAVY = ("torch", "verl", "ray", "vllm", "transformers", "matplotlib", "sdar_envs", "hydra")


def sdar(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "sdar_verl.cli.main", *arguments], capture_output=True, text=True, timeout=120
    )


def test_help_names_every_command(capsys):
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in cli.COMMANDS)


def test_without_a_command_the_usage_is_shown_and_the_status_tells(capsys):
    assert cli.main([]) == 2
    assert "usage: sdar" in capsys.readouterr().out


def test_unknown_command_lists_the_known_ones(capsys):
    assert cli.main(["trian"]) == 2
    error = capsys.readouterr().err
    assert "'trian'" in error and all(name in error for name in cli.COMMANDS)


def test_importing_and_showing_help_imports_nothing_heavy():
    code = (
        "import json, sys; from sdar_verl.cli import main; main.usage(); "
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != "train"])
def test_each_command_has_a_parser_whose_program_is_sdar(name, capsys):
    assert hasattr(importlib.import_module(f"sdar_verl.cli.{name}"), "add_parser")
    with pytest.raises(SystemExit) as stopped:
        cli.main([name, "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: sdar {name}")


def test_the_console_script_is_this_function():
    (script,) = entry_points(group="console_scripts", name="sdar")
    assert script.load() is cli.main


def test_train_hands_its_arguments_to_hydra():
    done = sdar("train", "method=grpo", "platform=cpu", "data.train_batch_size=3", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "train_batch_size: 3" in done.stdout and "method: grpo" in done.stdout


def test_train_refuses_an_unknown_key():
    done = sdar("train", "platform=cpu", "sdar.distillation.betta=3")
    assert done.returncode != 0
    assert "betta" in done.stderr
