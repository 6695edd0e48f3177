"""Bad input is refused before anything starts, and the message says what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from sdar_envs.alfworld.generate import generate_games
from sdar_envs.alfworld.knobs import Knobs
from transformers import AutoTokenizer

from sdar_verl.lab.model import build_model
from sdar_verl.lab.tokenizer import train_tokenizer
from sdar_verl.skills import open_store

PROBE = Path(__file__).with_name("prepare_probe.py")
GENERAL = "---\nid: only-general\nenv: alfworld\ntask_type: null\nversion: 1\nprovenance: test\n---\nLook around.\n"

# name: (overrides, what the refusal says); {..} are folders of the fixture
REFUSED = {
    "a misspelt key": (["sdar.distillation.koef=1"], "koef"),
    "an unknown key added": (["+sdar.teacher.lenght=3"], "unknown key sdar.teacher.lenght; known: placement"),
    "lambda out of range": (["sdar.distillation.coef=-1"], "sdar.distillation: .*coef"),
    "beta out of range": (["sdar.distillation.beta=0"], "sdar.distillation: .*beta"),
    "an unknown gate": (["sdar.distillation.gate=gaps"], "gaps.*gap"),
    "no data root": (["env.alfworld.data_root=null"], "data_root"),
    "a folder that is not there": (["env.alfworld.data_root={root}/nowhere"], "nowhere"),
    "a folder without games": (["env.alfworld.data_root={empty}"], "empty"),
    "broken games": (["env.alfworld.data_root={broken}"], r"(?s)broken.*game\.tw-pddl"),
    "too few games": (["data.train_batch_size=9"], "has 8 tasks; lower it or provide more games"),
    "validation on training tasks": (["env.valid_split=train"], "validate on other tasks"),
    "a missing split": (["env.train_split=nothing"], "nothing"),
    "no service at the endpoint": (
        ["env.service.endpoints=[ws://127.0.0.1:9]", "env.service.reconnect_timeout=0.5"],
        r"Unreachable: .*no episode can begin: ws://127.0.0.1:9 cannot be reached.*sdar-env serve.*service\.endpoints",
    ),
    "an endpoint that is none": (
        ["env.service.endpoints=[http://127.0.0.1:9]"],
        "no episode can begin: endpoint .* is not of the form ws://host:port",
    ),
    "no teacher server": (
        ["sdar.teacher.placement=remote", "sdar.teacher.remote.endpoints=[http://127.0.0.1:9]"],
        "placement=remote: no teacher server can be used: http://127.0.0.1:9: .*Cannot connect",
    ),
    "no token for the teacher's server": (
        [
            "sdar.teacher.placement=remote",
            "sdar.teacher.remote.endpoints=[http://127.0.0.1:9]",
            "sdar.teacher.remote.token_file={root}/nowhere",
        ],
        r"sdar\.teacher\.remote\.token_file: the token file .*nowhere cannot be read",
    ),
    "another engine at another temperature": (
        ["sdar.teacher.placement=rollout", "actor_rollout_ref.rollout.temperature=0.7"],
        "placement=rollout needs actor_rollout_ref.rollout.temperature=1 .*the student's are at 0.7",
    ),
    "no model": (["actor_rollout_ref.model.path={root}/nowhere"], "cannot be loaded"),
    "a tokenizer too large": (["actor_rollout_ref.model.path={small}"], "tokens but the model's vocabulary only"),
    "a vocabulary too large": (["actor_rollout_ref.model.path={large}"], "vocab_size equals len"),
    "no chat template": (["actor_rollout_ref.model.path={plain}"], "no chat template; use an instruct model"),
    "prompts that never fit": (
        ["data.max_prompt_length=20"],
        r"has \d+ tokens and can never fit.*max_prompt_length=20",
    ),
    "a teacher below the student": (["sdar.teacher.max_prompt_length=100"], "is below data.max_prompt_length"),
    "skills that never fit": (
        ["sdar.skills.store=alfworld", "sdar.teacher.max_prompt_length=560", "sdar.teacher.overflow=raise"],
        "no privileged prompt can be built",
    ),
    "a group of turns": (
        ["algorithm.adv_estimator=opo"],
        "adv_estimator=opo would take every turn of an episode for a sample.*one of grpo, .*rloo",
    ),
    "an entropy nobody computes": (
        ["sdar.distillation.gate=entropy", "algorithm.rollout_correction.bypass_mode=true"],
        "never computes",
    ),
    "a gap to the rollout's log-probabilities": (
        ["method=rlsd", "algorithm.rollout_correction.bypass_mode=true"],
        r"bypass_mode=true .*place=advantage takes the gap to the old log-probabilities; set it to false",
    ),
    "a clip that verl does not read": (
        ["actor_rollout_ref.actor.clip_ratio=0.3"],
        "clip_ratio=0.3 has no effect: verl reads clip_ratio_low=0.2 and clip_ratio_high=0.2; set these",
    ),
    "a greedy evaluation that would sample": (
        ["actor_rollout_ref.rollout.val_kwargs.do_sample=false"],
        "do_sample=false has no effect: .* which is 0.4; set val_kwargs.temperature=0",
    ),
    "a fused output layer that FSDP2 has in shards": (
        ["actor_rollout_ref.model.use_fused_kernels=true", "actor_rollout_ref.model.path={untied}"],
        "use_fused_kernels=true multiplies with .* a shard on each GPU",
    ),
    "a mean that depends on micro-batches": (
        ["actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum-norm"],
        "loss_scale_factor to one constant, such as data.max_response_length=12",
    ),
    "a KL that one turn alone would pay": (
        ["algorithm.use_kl_in_reward=true"],
        "grpo reads the last turn's alone; set it to false",
    ),
    "a reference model too small for privileged rows": (
        [
            "sdar.teacher.placement=ref",
            "actor_rollout_ref.actor.use_kl_loss=true",
            "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=2011",
        ],
        r"2012 tokens, more than ref\.log_prob_max_token_len_per_gpu allows: 2011",
    ),
    "a moving average in bfloat16, with a KL term": (
        [
            "sdar.teacher.placement=ref",
            "sdar.teacher.update_rate=0.05",
            "actor_rollout_ref.actor.use_kl_loss=true",
            "actor_rollout_ref.ref.fsdp_config.model_dtype=bf16",
        ],
        "needs .*model_dtype=fp32.*kl_loss_coef=0",
    ),
    "a bucket that no embedding fits into": (
        ["actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=0"],
        "update_weights_bucket_megabytes=1 or more",
    ),
    "a frozen teacher without a reference model": (
        ["sdar.teacher.placement=ref", "actor_rollout_ref.actor.use_kl_loss=false"],
        "the run has none; set actor_rollout_ref.actor.use_kl_loss=true",
    ),
    "distributions that are never formed": (
        [
            "sdar.distillation.divergence=full",
            "actor_rollout_ref.model.use_fused_kernels=true",
            "actor_rollout_ref.ref.fsdp_config.ulysses_sequence_parallel_size=2",
        ],
        "divergence=full needs .*use_fused_kernels=false.*ulysses_sequence_parallel_size=1",
    ),
    "a sibling of an only child": (
        ["sdar.context.parts=[demonstration]", "actor_rollout_ref.rollout.n=1"],
        "set actor_rollout_ref.rollout.n to 2 or more",
    ),
    "a division that cannot be left out": (
        ["algorithm.adv_estimator=grpo_vectorized", "algorithm.norm_adv_by_std_in_grpo=false"],
        "grpo_vectorized always divides by the standard deviation",
    ),
    "more positions than the model has": (
        ["actor_rollout_ref.rollout.max_model_len=4096"],
        "max_model_len=4096, but the model has 1024 positions; lower it",
    ),
    "what verl refuses": (
        ["actor_rollout_ref.actor.ulysses_sequence_parallel_size=2"],
        "verl refuses the configuration: .*use_remove_padding",
    ),
    "a frozen teacher with adapters": (
        [
            "sdar.distillation.divergence=topk",
            "sdar.teacher.placement=ref",
            "actor_rollout_ref.actor.use_kl_loss=true",
            "actor_rollout_ref.model.lora_rank=8",
        ],
        "divergence=topk needs .*lora_rank=0",
    ),
    "skills for both": (["sdar.skills.student=train"], "nothing to distil"),
    "an unknown retriever": (["sdar.skills.retriever=ruls"], "'ruls' is unknown; known: .*rules"),
    "an unknown placement": (["sdar.teacher.prompt_placement=top"], "'top' is unknown; known: .*system"),
    "a task type without a skill": (["sdar.skills.store={general}"], "sdar.skills: .*pick_and_place_simple"),
    "a malformed skill": (["sdar.skills.store={malformed}"], r"(?s)sdar.skills: .*bad\.md"),
    "no such skills": (["sdar.skills.store=nothing"], "sdar.skills: .*nothing"),
    "no ranks": (["trainer.n_gpus_per_node=0"], "at least 1|n_gpus"),
    "a Ray cluster too small": (["ray_kwargs.ray_init.num_cpus=4"], r"CPU \d+ needed, 4 there"),
    "ranks that cannot share an update": (
        ["trainer.n_gpus_per_node=3"],
        "mini_batch_size=4 x rollout.n=8 .* to 3 ranks",
    ),
    "engines that the ranks cannot fill": (
        ["actor_rollout_ref.rollout.tensor_model_parallel_size=2"],
        "1 GPUs .* cannot be cut into rollout engines of 2",
    ),
    "a machine too small": (
        ["ray_kwargs.ray_init.num_cpus=null", "transfer_queue.backend.SimpleStorage.num_data_storage_units=9999"],
        r"CPU 10005 needed, .*num_data_storage_units",
    ),
    "a disk too small for its checkpoints": (
        ["trainer.total_training_steps=1000000000", "trainer.save_freq=1", "trainer.max_actor_ckpt_to_keep=null"],
        r"GiB of disk are needed .* 1000000000 checkpoints of 0\.00\d+ GiB .*max_actor_ckpt_to_keep=None.*keep fewer",
    ),
    "a run that cannot go on": (["sdar.run_dir={started}"], "without a complete checkpoint"),
}


def save(folder, tokenizer, vocabulary=None, template=True):
    class Sized:
        eos_token_id, pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id

        def __len__(self):
            return vocabulary or len(tokenizer)

    build_model(Sized(), hidden=64, layers=1, heads=2, kv_heads=1, ffn=64, max_positions=1024, seed=0).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    if not template:
        for path in folder.glob("chat_template*"):
            path.unlink()
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings.pop("chat_template", None)
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def save_checkpoint(folder):
    """As much of a checkpoint as tells that it is whole."""
    (folder / "actor").mkdir(parents=True)
    (folder / "actor" / "model.pt").write_bytes(b"weights")
    with zipfile.ZipFile(folder / "data.pt", "w") as file:
        file.writestr("data", "state")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The folders that the cases name."""
    root = tmp_path_factory.mktemp("prepare")
    names = ("empty", "broken", "good", "small", "large", "plain", "general", "malformed", "started", "untied")
    folders = {name: root / name for name in names}
    for folder in folders.values():
        folder.mkdir()
    (folders["empty"] / "train").mkdir()
    knobs = Knobs(receptacles=(3, 5), objects=(3, 5))
    games = root / "games"
    generate_games(games, "train", 8, seed=1, knobs=knobs)
    generate_games(games, "valid_seen", 6, seed=1, knobs=knobs)
    shutil.rmtree(folders["broken"])
    shutil.copytree(games, folders["broken"])
    sorted((folders["broken"] / "train").rglob("game.tw-pddl"))[0].write_text("{")
    tokenizer = train_tokenizer(["You see a drawer 1, a desk 1. Your task is to: put a mug in drawer."] * 30, 400)
    save(folders["good"], tokenizer)
    save(folders["small"], tokenizer, vocabulary=len(tokenizer) - 5)
    save(folders["large"], tokenizer, vocabulary=len(tokenizer) + 5)
    save(folders["plain"], tokenizer, template=False)
    shutil.copytree(folders["good"], folders["untied"], dirs_exist_ok=True)
    shape = json.loads((folders["untied"] / "config.json").read_text())
    (folders["untied"] / "config.json").write_text(json.dumps(shape | {"tie_word_embeddings": False}))
    assert AutoTokenizer.from_pretrained(folders["plain"]).chat_template is None
    (folders["general"] / "general.md").write_text(GENERAL)
    (folders["malformed"] / "bad.md").write_text("no front matter")
    (folders["started"] / "manifest.json").write_text("{}")
    (folders["started"] / "metrics.jsonl").write_text('{"step":0,"data":{}}\n{"step":1,"data":{}}\n')
    return {"root": root, "games": games, **folders}


@pytest.fixture(scope="module")
def said(places):
    """What `prepare` says to each case."""
    base = [
        "platform=cpu",
        f"env.alfworld.data_root={places['games']}",
        "env.alfworld.thinking=false",
        "sdar.panel.size=6",
        "sdar.skills.store=alfworld_tiny",
        "sdar.teacher.max_prompt_length=2000",
        "data.train_batch_size=4",
        "data.max_prompt_length=560",
        "data.max_response_length=12",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        f"actor_rollout_ref.model.path={places['good']}",
    ]
    cases = {"fine": [*base, f"sdar.run_dir={places['root'] / 'run'}"]}
    cases["fine again"] = [*cases["fine"], "trainer.resume_mode=disable"]
    cases["another panel"] = [*cases["fine again"], "sdar.panel.seed=7", "sdar.panel.size=3"]
    cases["references"] = [
        *base,
        f"sdar.run_dir={places['root'] / 'references'}",
        "sdar.context.parts=[reference]",
        f"sdar.skills.store={places['general']}",
    ]
    # "began" leaves a checkpoint's files there; the others resume from them
    again = [*base, f"sdar.run_dir={places['root'] / 'again'}"]
    save_checkpoint(places["root"] / "again" / "checkpoints" / "global_step_3")
    cases["began"] = [*again, "trainer.resume_mode=disable"]
    cases["goes on"] = again
    cases["goes on faster"] = [*again, "actor_rollout_ref.actor.optim.lr=2e-5"]
    cases["goes on with other skills"] = [*again, "sdar.skills.store=alfworld"]
    cases["entropy"] = [*base, f"sdar.run_dir={places['root'] / 'entropy'}", "sdar.distillation.gate=entropy"]
    for number, (name, (overrides, _)) in enumerate(REFUSED.items()):
        run_dir = f"sdar.run_dir={places['root'] / f'refused{number}'}"
        cases[name] = [*base, run_dir, *(override.format(**places) for override in overrides)]
    (places["root"] / "cases.json").write_text(json.dumps(cases))
    done = subprocess.run(
        [sys.executable, str(PROBE), str(places["root"] / "cases.json")],
        env={**{k: v for k, v in os.environ.items() if k != "ALFWORLD_DATA"}, "VERL_PLATFORM": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]) | {"printed": done.stdout}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_what_to_do(said, places, case):
    assert said[case] is not None, "it was accepted"
    assert re.search(REFUSED[case][1], said[case]), said[case]
    number = list(REFUSED).index(case)
    assert not (places["root"] / f"refused{number}" / "manifest.json").exists(), "a refused run left a run folder"


def test_a_good_configuration_is_accepted_and_written_down(said, places):
    assert said["fine"] is None and said["fine again"] is None
    names = {path.name for path in (places["root"] / "run").iterdir()}
    assert {"config.yaml", "panel.json", "manifest.json"} <= names


def test_a_run_keeps_its_panel(said):
    assert re.search("ConfigError: .*panel.*Choose another sdar.run_dir", said["another panel"])


def test_the_tasks_own_solutions_need_no_skills(said, places):
    assert said["references"] is None
    assert json.loads((places["root"] / "references" / "manifest.json").read_text())["skills"] == []


def test_a_run_goes_on_with_the_skills_that_it_began_with(said, places):
    assert said["began"] is None and said["goes on"] is None and said["goes on faster"] is None
    assert re.search(r"(?s)ConfigError: sdar.skills: .*cannot go on with the skills", said["goes on with other skills"])
    run = places["root"] / "again"
    pins = json.loads((run / "manifest.json").read_text())["skills"]
    shipped = [{"id": s.id, "version": s.version, "hash": s.content_hash} for s in open_store("alfworld_tiny").all()]
    assert pins == shipped
    assert open_store(run / "skills").all() == open_store("alfworld_tiny").all()


def test_a_run_that_goes_on_says_what_is_not_as_it_was(said, places):
    earlier = json.loads((places["root"] / "again" / "manifest.json").read_text())["earlier"]
    assert [(start["until_step"], start["changed"]) for start in earlier] == [
        (3, {}),
        (3, {"actor_rollout_ref.actor.optim.lr": ["1e-06", "2e-05"]}),
    ]
    assert "earlier" not in json.loads((places["root"] / "run" / "manifest.json").read_text())
    assert said["printed"].count("not as it was") == 1
    assert "\n  actor_rollout_ref.actor.optim.lr: 1e-06 -> 2e-05\n" in said["printed"]


def test_a_gate_that_needs_entropy_makes_the_actor_compute_it(said, places):
    assert said["entropy"] is None
    for run, expected in (("entropy", True), ("run", False)):
        written = yaml.safe_load((places["root"] / run / "config.yaml").read_text())
        assert written["actor_rollout_ref"]["actor"]["calculate_entropy"] is expected
