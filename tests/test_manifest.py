import json
import os
import subprocess
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdar_envs.base import TaskRef

from sdar_verl import manifest as module
from sdar_verl.evaluation.panel import Panel
from sdar_verl.manifest import (
    ManifestError,
    build_manifest,
    config_hash,
    data_hash,
    earlier_starts,
    read_manifest,
    write_manifest,
)
from sdar_verl.redaction import HIDDEN, redact


@dataclass
class FakeSkill:
    id: str = "alfworld/heat"
    version: int = 2
    content_hash: str = "f" * 64


def test_a_manifest_holds_what_a_run_was_made_of(tmp_path, monkeypatch):
    monkeypatch.setenv("VERL_TEST_MODE", "on")
    monkeypatch.setenv("VLLM_API_KEY", "very-secret-1")
    monkeypatch.setenv("SOME_PASSWORD", "very-secret-2")
    panel = Panel("alfworld", "valid_seen", (TaskRef("a", "t", "valid_seen"),))
    config = {"trainer": {"total_training_steps": 5}, "wandb": {"api_key": "very-secret-3"}}
    built = build_manifest(config, panel=panel, data={"train": "d"}, skills=[FakeSkill()], seeds={"run": 7})
    path = write_manifest(tmp_path / "run", built)
    assert path == tmp_path / "run" / "manifest.json" and read_manifest(tmp_path / "run") == built
    assert built["panel"] == {"hash": panel.hash, "size": 1, "split": "valid_seen"}
    assert built["skills"] == [{"id": "alfworld/heat", "version": 2, "hash": "f" * 64}]
    assert built["seeds"] == {"run": 7} and built["data"] == {"train": "d"}
    assert built["packages"]["verl"] == "0.9.1" and "torch" in built["packages"]
    assert built["environment"]["VERL_TEST_MODE"] == "on" and built["config_hash"] == config_hash(config)
    assert "SOME_PASSWORD" not in built["environment"] and "very-secret" not in path.read_text()


def test_a_missing_or_broken_manifest_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="cannot read"):
        read_manifest(tmp_path)
    for text in ("{", "[]"):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ManifestError, match="manifest.json"):
            read_manifest(tmp_path)


def test_nothing_is_left_half_written(tmp_path):
    with pytest.raises(ValueError):
        write_manifest(tmp_path, {"x": float("nan")})
    write_manifest(tmp_path, {"x": 1})
    with pytest.raises(ValueError):
        write_manifest(tmp_path, {"x": float("nan")})
    assert os.listdir(tmp_path) == ["manifest.json"] and read_manifest(tmp_path) == {"x": 1}


def test_every_start_of_a_run_is_kept_with_what_it_changed():
    first = {"started": "monday", "config": {"a": {"lr": 1, "seed": 0}, "run_dir": "x"}, "git": None, "cores": 1}
    second = {
        "started": "tuesday",
        "config": {"a": {"lr": 2, "seed": 0}, "run_dir": "y", "trainer": {"resume_mode": "auto"}},
        "git": {"commit": "c"},
        "packages": {"torch": "2"},
        "data": {"train": "d"},
        "cores": 2,
    }
    second["earlier"] = earlier_starts(first, second, 4)
    changed = {
        "a.lr": ["1", "2"],
        "git.commit": ["absent", "c"],
        "package.torch": ["absent", "2"],
        "data_hash.train": ["absent", "d"],
        "machine.cores": ["1", "2"],
    }
    assert second["earlier"] == [{"started": "monday", "until_step": 4, "changed": changed}]
    third = earlier_starts(second, second, None)
    assert third == [*second["earlier"], {"started": "tuesday", "until_step": None, "changed": {}}]


def test_config_hash_sees_values_not_order_nor_secrets():
    one = config_hash({"a": 1, "b": {"c": 2.5, "api_key": "x"}})
    assert one == config_hash({"b": {"api_key": "y", "c": 2.5}, "a": 1})
    assert one != config_hash({"a": 1, "b": {"c": 2.6, "api_key": "x"}})


def test_data_hash_sees_contents_not_places(tmp_path):
    def tasks(root, content="game"):
        (tmp_path / root).mkdir()
        refs = []
        for name in ("a", "b"):
            file = tmp_path / root / name
            file.write_text(content + name)
            refs.append(TaskRef(name, "t", "train", str(file)))
        return refs

    here, there, other = tasks("here"), tasks("there"), tasks("other", "changed")
    assert data_hash(here) == data_hash(reversed(there)) != data_hash(other)
    assert data_hash(here) != data_hash(here[:1])
    (tmp_path / "here" / "a").unlink()
    with pytest.raises(ManifestError, match="task 'a'"):
        data_hash(here)


def test_git_state_tells_commit_and_changes_only_of_its_own_repository(tmp_path, monkeypatch):
    def git(*arguments):
        command = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    assert module.git_state(tmp_path) is None  # nothing of ours is tracked here
    (tmp_path / "manifest.py").write_text("x")
    git("add", "manifest.py")
    git("commit", "-q", "-m", "first")
    assert module.git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "changed": False}
    (tmp_path / "manifest.py").write_text("y")
    assert module.git_state(tmp_path)["changed"] is True
    monkeypatch.setenv("PATH", "")
    assert module.git_state(tmp_path) is None


@pytest.mark.parametrize(
    "given_, wanted",
    [
        ({"api_key": "x"}, {"api_key": HIDDEN}),
        ({"HF_TOKEN": "x", "hfToken": "y"}, {"HF_TOKEN": HIDDEN, "hfToken": HIDDEN}),
        ({"secrets": {"a": "x", "b": ["y"]}}, {"secrets": {"a": HIDDEN, "b": [HIDDEN]}}),
        ({"password": 1234, "max_token_len": 1234}, {"password": HIDDEN, "max_token_len": 1234}),
        (
            {"max_token_len": "${oc.select:a.max_token_len,8192}"},
            {"max_token_len": "${oc.select:a.max_token_len,8192}"},
        ),
        ({"token": "${oc.env:TOKEN,abc}", "a_token": "${x}y"}, {"token": HIDDEN, "a_token": HIDDEN}),
        ({"password": "${oc.select:a.password,1234}"}, {"password": HIDDEN}),
        ({"tokenizer": "path", "use_token_mask": True}, {"tokenizer": "path", "use_token_mask": True}),
        (["+wandb.api_key=abc", "data.max_token=5"], [f"+wandb.api_key={HIDDEN}", "data.max_token=5"]),
        (["--api-key", "abc", "--steps", "3"], ["--api-key", HIDDEN, "--steps", "3"]),
        (["A=1 TOKEN=abc B=2"], [f"A=1 TOKEN={HIDDEN} B=2"]),
        ("https://me:pw@host/x", f"https://{HIDDEN}@host/x"),
        (
            "https://b.s3.amazonaws.com/k?X-Amz-Algorithm=A&X-Amz-Signature=0a1b&X-Amz-Security-Token=x",
            f"https://b.s3.amazonaws.com/k?X-Amz-Algorithm=A&X-Amz-Signature={HIDDEN}&X-Amz-Security-Token={HIDDEN}",
        ),
        ("dynamodb://T/S?region=eu-west-1&release=2", "dynamodb://T/S?region=eu-west-1&release=2"),
        ("hf_" + "a" * 30, HIDDEN),
        ({"note": None, "n": 1.5}, {"note": None, "n": 1.5}),
    ],
)
def test_redaction_of_the_usual_places(given_, wanted):
    assert redact(given_) == wanted


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(alphabet="abc xyz", max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet="abcd", max_size=4), inner),
        max_leaves=12,
    ),
    st.sampled_from(["api_key", "token", "client_secret", "PASSWORD", "aws_credentials"]),
)
def test_no_depth_hides_a_secret_and_harmless_values_stay(value, name):
    assert redact(value) == value
    found = json.dumps(redact({"outer": [value, {name: {"deep": ["s3cr3t-value", value]}}]}))
    assert "s3cr3t-value" not in found
