"""A WebShop run is checked and written down before it starts, as any other."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sdar_envs.webshop.generate import generate_catalogue

from sdar_verl.lab.model import build_model
from sdar_verl.lab.tokenizer import train_tokenizer

PROBE = Path(__file__).with_name("prepare_probe.py")
REFUSED = {
    "no data root": (["env.webshop.data_root=null"], "env.webshop.data_root is not set"),
    "no catalogue": (["env.webshop.data_root={root}"], "neither of items_shuffle_1000.json"),
    "no noun table": (["env.webshop.data_root={bare}"], "sdar_envs.webshop.nouns"),
    "another environment's split": (["env.valid_split=valid_seen"], "there are: train, eval, test"),
    "too few goals": (["env.webshop.eval_size=100000"], "no synthetic goals are left"),
    "an unknown key": (["+env.webshop.use_small=true"], "unknown keys under env.webshop: use_small"),
    "another environment's skills": (["sdar.skills.store=alfworld"], "this set is for 'webshop'"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepare-webshop")
    for name, seed in (("data", 1), ("other", 2), ("bare", 3)):
        generate_catalogue(root / name, 120, seed)
    (root / "bare" / "nouns.json").unlink()
    tokenizer = train_tokenizer(
        ["Find me a machine washable rug; click[buy now] search[rug] Page 1 of results"] * 30, 400
    )
    build_model(
        tokenizer, hidden=64, layers=1, heads=2, kv_heads=1, ffn=64, max_positions=8192, seed=0
    ).save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    return root


@pytest.fixture(scope="module")
def said(root):
    base = [
        "platform=cpu",
        "env=webshop",
        f"env.webshop.data_root={root / 'data'}",
        f"env.webshop.cache_dir={root / 'cache'}",
        "env.webshop.test_size=20",
        "env.webshop.eval_size=20",
        "sdar.panel.size=10",
        "sdar.teacher.max_prompt_length=6144",
        "data.train_batch_size=4",
        "data.max_prompt_length=4096",
        "data.max_response_length=12",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        f"actor_rollout_ref.model.path={root / 'model'}",
    ]
    cases = {name: [*base, f"sdar.run_dir={root / name}"] for name in ("fine", "catalogue", "human", "leaky", "solved")}
    cases["catalogue"].append(f"env.webshop.data_root={root / 'other'}")
    cases["human"] += ["env.webshop.goals=human", "env.webshop.test_size=5", "env.webshop.eval_size=10"]
    cases["leaky"] += ["env.webshop.split=verl_agent", "env.webshop.train_workers=2", "env.webshop.eval_workers=1"]
    cases["solved"].append("sdar.context.parts=[reference]")
    for name, (overrides, _) in REFUSED.items():
        cases[name] = [
            *base,
            f"sdar.run_dir={root / 'refused'}",
            *(text.format(root=root, bare=root / "bare") for text in overrides),
        ]
    (root / "cases.json").write_text(json.dumps(cases))
    done = subprocess.run(
        [sys.executable, str(PROBE), str(root / "cases.json")],
        env={**{k: v for k, v in os.environ.items() if k != "WEBSHOP_DATA"}, "VERL_PLATFORM": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["fine", "catalogue", "human", "leaky", "solved"])
def test_accepted(said, root, name):
    assert said[name] is None
    assert {"config.yaml", "panel.json", "manifest.json"} <= {path.name for path in (root / name).iterdir()}


def test_the_manifest_tells_catalogues_apart(said, root):
    found = {name: json.loads((root / name / "manifest.json").read_text())["data"] for name in ("fine", "catalogue")}
    assert found["fine"]["train"] != found["catalogue"]["train"]


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_what_to_do(said, root, case):
    assert said[case] is not None, "it was accepted"
    assert re.search(REFUSED[case][1], said[case]), said[case]
    assert not (root / "refused").exists()
