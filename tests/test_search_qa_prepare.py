"""A Search-QA run is checked before it starts, on a generated world with a tiny model; what is wrong is said."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sdar_envs.search_qa.generate import generate
from sdar_envs.search_qa.world.knobs import WorldKnobs

from sdar_verl.lab.model import build_model
from sdar_verl.lab.tokenizer import train_tokenizer
from sdar_verl.skills import open_store

PROBE = Path(__file__).with_name("prepare_probe.py")
REFUSED = {
    "no questions": (["env.search_qa.data_root=null"], "data_root is not set"),
    "no retriever": (["env.search_qa.retriever.index=null"], "needs its folder: set index"),
    "no such engine": (["env.search_qa.retriever.engine=bing"], "unknown retriever 'bing'; known: bedrock, bm25s"),
    "a dead server": (
        [
            "env.search_qa.retriever.engine=http",
            "env.search_qa.retriever.index=null",
            "env.search_qa.retriever.url=http://127.0.0.1:9/retrieve",
        ],
        "no episode can begin: .*no answer from the retriever at http://127.0.0.1:9/retrieve",
    ),
    "a misspelt engine setting": (["+env.search_qa.retriever.threads=2"], "unknown keys of retriever bm25s"),
    "a split that is not there": (["env.valid_split=dev"], r"no Search-QA split 'dev'"),
    "too few questions": (["data.train_batch_size=99"], "has 24 tasks"),
    "skills of another environment": (["sdar.skills.store=alfworld"], "sdar.skills: "),
}
pytestmark = pytest.mark.slow  # imports the whole stack


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    root = tmp_path_factory.mktemp("search_qa")
    generate(root / "world", {"train": 24, "test": 12}, knobs=WorldKnobs(people=40))
    tokenizer = train_tokenizer([skill.text for skill in open_store("search_qa").all()], 600)
    model = build_model(tokenizer, hidden=64, layers=1, heads=2, kv_heads=1, ffn=64, max_positions=4096, seed=0)
    model.save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    base = [
        "platform=cpu",
        "env=search_qa",
        f"env.search_qa.data_root={root / 'world'}",
        "env.search_qa.retriever.engine=bm25s",
        f"env.search_qa.retriever.index={root / 'world' / 'index'}",
        "sdar.panel.size=6",
        "sdar.teacher.max_prompt_length=4000",
        "data.train_batch_size=4",
        "data.max_prompt_length=1000",
        "data.max_response_length=32",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        f"actor_rollout_ref.model.path={root / 'model'}",
    ]
    cases = {"fine": [*base, f"sdar.run_dir={root / 'run'}"]}
    cases["references"] = [*base, f"sdar.run_dir={root / 'references'}", "sdar.context.parts=[reference]"]
    for number, (name, (overrides, _)) in enumerate(REFUSED.items()):
        cases[name] = [*base, f"sdar.run_dir={root / f'refused-{number}'}", *overrides]
    (root / "cases.json").write_text(json.dumps(cases))
    done = subprocess.run(
        [sys.executable, str(PROBE), str(root / "cases.json")],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "VERL_PLATFORM": "cpu"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]) | {"root": str(root)}


@pytest.mark.parametrize("name", ["fine", "references"])
def test_a_run_can_start(said, name):
    assert said[name] is None
    run = Path(said["root"]) / {"fine": "run", "references": "references"}[name]
    panel = json.loads((run / "panel.json").read_text())
    assert (panel["env"], len(panel["tasks"])) == ("search_qa", 6)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_said(said, name):
    assert said[name] is not None and re.search(REFUSED[name][1], said[name], re.DOTALL), said[name]
