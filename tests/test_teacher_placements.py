"""Which teachers may score where: impossible combinations are named at the start."""

from __future__ import annotations

import copy

import pytest
from omegaconf import OmegaConf
from test_settings import CONFIG

from sdar_verl import methods
from sdar_verl.errors import ConfigError
from sdar_verl.redaction import redact
from sdar_verl.requirements import check_teacher
from sdar_verl.settings import Settings
from sdar_verl.teacher_parts import ON_FAILURE

URLS = ["http://one:8000", "https://two"]
REMOTE = {"teacher.placement": "remote", "teacher.remote.endpoints": URLS}


def settings(changes):
    config = copy.deepcopy(CONFIG)
    for path, value in changes.items():
        *folders, last = path.split(".")
        part = config["sdar"]
        for folder in folders:
            part = part[folder]
        part[last] = value
    return Settings.from_config(config)


@pytest.mark.parametrize("changes", [
    REMOTE,
    {**REMOTE, "teacher.model_path": "m", "context.parts": []},
    {**REMOTE, "teacher.remote.on_failure": "fallback", "context.parts": ["feedback"]},
    {"teacher.placement": "server", "teacher.model_path": "m"},
    {"teacher.placement": "server", "teacher.update_rate": 0.1, "teacher.sync_steps": 5},
    {"teacher.placement": "rollout"},
])  # fmt: skip
def test_what_is_accepted(changes):
    assert settings(changes).teacher.placement == changes["teacher.placement"]


@pytest.mark.parametrize("changes, why", [
    ({"teacher.placement": "remote"}, "needs the servers' addresses in sdar.teacher.remote.endpoints"),
    ({"teacher.remote.endpoints": URLS}, "has no effect with sdar.teacher.placement=actor"),
    ({"teacher.placement": "server", "teacher.remote.endpoints": URLS}, "has no effect"),
    ({**REMOTE, "teacher.remote.endpoints": "http://one"}, "must be a list of addresses"),
    ({**REMOTE, "teacher.remote.endpoints": ["one:8000"]}, "write an address as http://host:port"),
    ({**REMOTE, "teacher.remote.endpoints": ["http://one:port"]}, "write an address as http://host:port"),
    ({**REMOTE, "teacher.remote.endpoints": ["http://one/", "http://one"]}, "names a server twice"),
    ({**REMOTE, "teacher.remote.on_failure": "pray"}, "known: wait, fallback, skip"),
    ({**REMOTE, "teacher.remote.patience": 0}, "patience must be a number above 0, or null"),
    ({**REMOTE, "teacher.remote.retries": -1}, "retries must be a whole number from 0"),
    ({**REMOTE, "teacher.remote.concurrency": True}, "concurrency must be a whole number from 1"),
    ({**REMOTE, "teacher.remote.check_seconds": float("nan")}, "check_seconds must be a number from 0"),
    ({**REMOTE, "teacher.update_rate": 0.1}, r"update_rate changes .*\(placement=remote has weights that never change"),
    ({"teacher.placement": "rollout", "teacher.model_path": "m"}, "placement=rollout always has the policy's weights"),
    ({"teacher.placement": "server", "teacher.trust_region": 0.1}, "trust_region changes .*server serves the"),
    ({"teacher.placement": "server", "teacher.update_rate": 0.1, "teacher.model_path": "m"}, "choose one"),
    ({**REMOTE, "teacher.remote.on_failure": "fallback", "teacher.model_path": "m"}, "choose wait or skip"),
    ({"teacher.placement": "rollout", "context.parts": []}, "the gap is 0 everywhere"),
    ({"teacher.placement": "rollout", "context.parts": ["demonstration"]}, "demonstration is known only after"),
    ({**REMOTE, "distillation.divergence": "full", "distillation.gate": "none"}, "log-probabilities alone"),
    ({"teacher.placement": "server", "distillation.divergence": "topk", "distillation.gate": "none"}, "alone"),
    ({"teacher.server.replicas": 0}, "replicas must be a whole number from 1"),
    ({"teacher.server.gpu_memory_utilization": 1.5}, r"must be a number in \(0, 1\]"),
])  # fmt: skip
def test_what_is_refused(changes, why):
    with pytest.raises(ConfigError, match=why):
        settings(changes)


def test_a_password_in_an_address_is_refused_without_showing_it():
    with pytest.raises(ConfigError, match="token_file") as error:
        settings({**REMOTE, "teacher.remote.endpoints": ["http://me:hunter2@one:8000"]})
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("policy, seconds", zip(ON_FAILURE, (1800, 30, 30), strict=True))
def test_patience_is_of_the_policy(policy, seconds):
    found = settings({**REMOTE, "teacher.remote.on_failure": policy})
    assert found.teacher.remote.dark_seconds == seconds
    found = settings({**REMOTE, "teacher.remote.on_failure": policy, "teacher.remote.patience": 7})
    assert found.teacher.remote.dark_seconds == 7


ROLLOUT = {"sdar.teacher.placement": "rollout", "actor_rollout_ref.rollout.max_model_len": 4609}
FALLBACK = {
    "sdar.teacher.placement": "remote",
    "sdar.teacher.remote.endpoints": URLS,
    "sdar.teacher.remote.on_failure": "fallback",
}
AVERAGE = {
    "sdar.teacher.placement": "server",
    "sdar.teacher.update_rate": 0.1,
    "actor_rollout_ref.actor.kl_loss_coef": 0.0,
    "actor_rollout_ref.ref.fsdp_config.model_dtype": "fp32",
}
LENGTHS = {"data.max_prompt_length": 2048, "data.max_response_length": 512}


@pytest.mark.parametrize("changes, why", [
    (ROLLOUT, None),
    ({**ROLLOUT, "actor_rollout_ref.rollout.max_model_len": None}, None),
    ({**ROLLOUT, "actor_rollout_ref.rollout.max_model_len": 4608}, "max_model_len=4609 or more"),
    ({**ROLLOUT, "actor_rollout_ref.rollout.temperature": 0.9}, "temperature=1 .*are at 0.9"),
    ({**ROLLOUT, "actor_rollout_ref.rollout.top_p": 0.9}, "top_p=1"),
    ({**ROLLOUT, "actor_rollout_ref.rollout.top_k": 20}, "top_k=-1"),
    ({**ROLLOUT, "actor_rollout_ref.rollout.name": "sglang"}, "rollout.name=vllm"),
    ({**ROLLOUT, "actor_rollout_ref.rollout.calculate_log_probs": False}, "calculate_log_probs=true"),
    (FALLBACK, None),
    ({**FALLBACK, "actor_rollout_ref.rollout.temperature": 0.4}, "placement=remote needs .*temperature=1"),
    ({**FALLBACK, "actor_rollout_ref.actor.use_kl_loss": False}, "use_kl_loss=true .* for on_failure=fallback"),
    ({"sdar.teacher.placement": "server", "actor_rollout_ref.rollout.temperature": 0.4}, "placement=server needs"),
    (AVERAGE, None),
    ({**AVERAGE, "actor_rollout_ref.actor.use_kl_loss": False}, "average in the reference model, but the run has none"),
    ({**AVERAGE, "actor_rollout_ref.actor.kl_loss_coef": 0.01}, "kl_loss_coef=0"),
    ({**AVERAGE, "actor_rollout_ref.model.lora_rank": 8}, "lora_rank=0"),
])  # fmt: skip
def test_what_it_asks_of_verls_own_settings(changes, why):
    config = methods.compose("sdar")
    for key, value in {**LENGTHS, **changes}.items():
        OmegaConf.update(config, key, value)
    config.sdar.run_dir = "runs/x"
    plain = OmegaConf.to_container(config, resolve=True)
    if why is None:
        check_teacher(plain, Settings.from_config(plain))
        return
    with pytest.raises(ConfigError, match=why):
        check_teacher(plain, Settings.from_config(plain))


def test_the_tokens_file_is_not_written_down():
    found = redact({"remote": {"token_file": "/secret/place", "endpoints": URLS}})
    assert "/secret/place" not in str(found) and found["remote"]["endpoints"] == URLS
