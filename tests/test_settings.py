"""The project's part of a configuration: what is accepted, what is refused and by which key it is named."""

import copy
import math

import pytest

from sdar_verl.errors import ConfigError
from sdar_verl.guards import GUARDS
from sdar_verl.methods import composed
from sdar_verl.settings import Settings

CONFIG = {
    "sdar": {
        "method": "sdar",
        "run_dir": "runs/x",
        "rows": "step",
        "max_turn_tokens": None,
        "poll_seconds": 0.5,
        "guards": {name: {"action": "warn", "limit": 0.5, "steps": 3} for name in GUARDS},
        "distillation": {
            "enabled": True,
            "coef": 0.01,
            "beta": 5.0,
            "gate": "gap",
            "divergence": "sampled_token",
            "schedule": {"name": "constant", "steps": None, "floor": 0.0},
        },
        "step_groups": {"weight": 0.0, "gamma": 0.95, "norm": "mean"},
        "teacher": {
            "placement": "actor",
            "prompt_placement": "system",
            "max_prompt_length": 100,
            "overflow": "shrink",
            "update_rate": None,
            "sync_steps": 1,
            "trust_region": None,
            "model_path": None,
            "remote": {
                "endpoints": [],
                "token_file": None,
                "model": None,
                "on_failure": "wait",
                "patience": None,
                "connect_timeout": 10,
                "request_timeout": 120,
                "retries": 5,
                "concurrency": 8,
                "check_seconds": 0,
                "probe_tolerance": 0.05,
            },
            "server": {
                "replicas": 1,
                "tensor_parallel_size": 1,
                "gpu_memory_utilization": 0.85,
                "start_timeout": 900,
                "restarts": 3,
            },
        },
        "context": {
            "parts": ["skills"],
            "success_reward_threshold": None,
            "remove_thinking_from_demonstration": True,
            "environment_feedback_only_without_solution": True,
        },
        "skills": {
            "store": "alfworld",
            "retriever": "rules",
            "allow_missing": False,
            "seed": 0,
            "student": "none",
            "ucb": {"c": 1.0, "score": "won"},
            "semantic": {"model": None, "skills": 1},
        },
        "panel": {"size": 5, "seed": 1},
        "record": {"token_episodes": 2},
        "checkpoints": {
            "s3": None,
            "keep": 2,
            "parallel": 8,
            "max_bandwidth": None,
            "attempts": 5,
            "verify": True,
            "shared_folder": False,
        },
        "spot": {
            "imds": False,
            "sigterm": False,
            "on_notice": "finish",
            "on_rebalance": "save",
            "poll_seconds": 5,
            "upload_seconds": 90,
            "mtbf_hours": None,
        },
    },
    "actor_rollout_ref": {"actor": {"loss_agg_mode": "token-mean"}},
    "env": {
        "name": "alfworld",
        "invalid_action_penalty": 0.1,
        "train_split": "train",
        "valid_split": "valid_seen",
        "pool": {"workers": 1, "envs_per_worker": 2, "step_timeout": 1, "reset_timeout": 1, "episode_timeout": 1},
        "service": {
            "endpoints": [],
            "token_file": None,
            "connect_timeout": 10,
            "reconnect_timeout": 60,
            "ping_timeout": 20,
        },
        "alfworld": {"max_steps": 50},
    },
}


def read(path=None, value=None):
    """The settings of `CONFIG`, with the key at `path` (dots) set to `value`."""
    config = copy.deepcopy(CONFIG)
    if path:
        *folders, last = path.split(".")
        part = config
        for name in folders:
            part = part[name]
        part[last] = value
    return Settings.from_config(config)


def test_a_whole_configuration():
    settings = read()
    assert settings.distillation.coef == 0.01 and settings.distillation.beta == 5.0
    assert settings.env.config == {"max_steps": 50} and settings.env.pool.envs_per_worker == 2
    assert (settings.panel_size, settings.panel_seed, settings.token_episodes) == (5, 1, 2)


def test_without_distillation_there_is_no_term():
    assert read("sdar.distillation.enabled", False).distillation is None


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("sdar.rows", "steps", r"sdar.rows='steps' is unknown; known: step, trajectory"),
        ("sdar.poll_seconds", 0, "sdar.poll_seconds must lie between"),
        ("sdar.teacher.placement", "cloud", "sdar.teacher.placement='cloud' is unknown; known: actor, ref"),
        ("sdar.teacher.update_rate", 0.1, "sdar.teacher.update_rate changes the reference model; set .*placement=ref"),
        ("sdar.teacher.update_rate", 1.5, r"sdar.teacher.update_rate must lie in \(0, 1\]"),
        ("sdar.teacher.trust_region", 1.0, "sdar.teacher.trust_region must lie between 0 and 1"),
        ("sdar.teacher.model_path", "", "sdar.teacher.model_path is not set"),
        ("sdar.context.parts", ["skill"], "must name each of its parts once; known: skills, reference, feedback"),
        ("sdar.context.parts", ["feedback", "feedback"], "must name each of its parts once"),
        ("sdar.context.parts", [], "make teacher and student the same"),
        ("sdar.context.parts", "skills", r"must be a list such as \[skills\], got 'skills'"),
        ("sdar.context.parts", None, r"must be a list such as \[skills\], got None"),
        ("sdar.context.parts", ["reference", "feedback"], "feedback would never be shown"),
        ("sdar.context.success_reward_threshold", 0.5, r"success_reward_threshold \(set null\) without effect"),
        ("sdar.context.remove_thinking_from_demonstration", False, "without effect"),
        ("sdar.context.success_reward_threshold", "high", "must be a number or null, got 'high'"),
        ("sdar.teacher.lenght", 3, "unknown key sdar.teacher.lenght; known: placement"),
        ("sdar.skills.retreiver", "full", "unknown key sdar.skills.retreiver; known: store, retriever"),
        ("sdar.skills.ucb", {"c": -1.0, "score": "won"}, "sdar.skills.ucb.c must be a number >= 0, got -1.0"),
        ("sdar.skills.ucb", {"c": 1.0, "score": "luck"}, "sdar.skills.ucb.score='luck' is unknown; known: won, reward"),
        ("sdar.skills.semantic.skills", 0, "sdar.skills.semantic.skills must be a whole number from 1, got 0"),
        ("sdar.skills.ucb.d", 1.0, "unknown key sdar.skills.ucb.d"),
        ("sdar.checkpoints.s3", "bucket/run", "sdar.checkpoints.s3: 'bucket/run' names no bucket; the form is s3://"),
        ("sdar.checkpoints.s3", "s3://bucket", "needs a prefix of its own"),
        ("sdar.checkpoints.s3", "s3://bucket/run?profile=me", "profile is unknown or twice"),
        ("sdar.checkpoints.keep", 0, "sdar.checkpoints.keep must be a whole number from 1"),
        ("sdar.checkpoints.max_bandwidth", 0, "max_bandwidth must be MiB/s or null"),
        ("sdar.checkpoints.verify", "yes", "sdar.checkpoints.verify must be true or false"),
        ("sdar.checkpoints.bandwidth", 1, "unknown key sdar.checkpoints.bandwidth; known: s3"),
        ("sdar.spot.on_notice", "panic", "sdar.spot.on_notice='panic' is unknown; known: finish, abandon"),
        ("sdar.spot.on_rebalance", "go", "sdar.spot.on_rebalance='go' is unknown; known: ignore, save, stop"),
        ("sdar.spot.poll_seconds", 0, "sdar.spot.poll_seconds must lie between"),
        ("sdar.spot.upload_seconds", -1, "sdar.spot.upload_seconds must be above 0"),
        ("sdar.spot.mtbf_hours", 0, "sdar.spot.mtbf_hours must be above 0 or null"),
        ("sdar.distillation.coef", -0.1, "sdar.distillation: .*coef"),
        ("sdar.distillation.coef", math.inf, "sdar.distillation: .*coef"),
        ("sdar.distillation.beta", 0.0, "sdar.distillation: .*beta"),
        ("sdar.distillation.beta", math.nan, "sdar.distillation: .*beta"),
        ("sdar.distillation.gate", "gaps", "sdar.distillation: .*gaps.*gap"),
        ("sdar.distillation.lambda", 0.1, "sdar.distillation: .*lambda"),
        ("sdar.distillation.schedule", {"name": "sometimes"}, "sdar.distillation: .*sometimes"),
        ("env.name", "chess", "env.name='chess' has no section env.chess"),
        ("env.invalid_action_penalty", -1.0, "env.invalid_action_penalty must be a finite number >= 0"),
        ("env.invalid_action_penalty", math.nan, "env.invalid_action_penalty must be a finite number >= 0"),
        ("env.pool.workers", 0, "env.pool.workers and env.pool.envs_per_worker must be at least 1"),
        ("env.pool.worker", 1, "unknown key env.pool.worker"),
        ("env.service.endpoints", "ws://one:1", "env.service.endpoints must be a list of addresses"),
        ("env.service.endpoints", [1], "env.service.endpoints must be a list of addresses"),
        ("env.service.endpoints", ["ws://one:1", "ws://one:1"], "names a service twice"),
        ("env.service.reconnect_timeout", 0, "env.service.reconnect_timeout must be positive"),
        ("env.service.endpoint", "ws://one:1", "unknown key env.service.endpoint; known: endpoints"),
        ("env.service", None, "no section env.service"),
        ("sdar.teacher", None, "no section sdar.teacher"),
    ],
)
def test_what_is_refused_is_named(path, value, says):
    with pytest.raises(ConfigError, match=says):
        read(path, value)


def test_a_missing_key_is_named():
    config = copy.deepcopy(CONFIG)
    del config["sdar"]["skills"]["seed"]
    with pytest.raises(ConfigError, match="missing key sdar.skills.seed"):
        Settings.from_config(config)


def test_a_missing_section_is_named():
    with pytest.raises(ConfigError, match="no section sdar"):
        Settings.from_config({"env": CONFIG["env"]})


def test_skills_are_shown_to_the_student_or_taught_not_both():
    with pytest.raises(ConfigError, match="nothing to distil"):
        read("sdar.skills.student", "train")
    with pytest.raises(ConfigError, match="'never' is unknown; known: none, train, always"):
        read("sdar.skills.student", "never")
    assert read().uses_skills
    assert not read("sdar.distillation.enabled", False).uses_skills


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("weight", -1, "sdar.step_groups: weight must be a finite number >= 0"),
        ("gamma", 1.5, r"sdar.step_groups: gamma must lie in \[0, 1\]"),
        ("norm", "std", "unknown norm 'std'; known: mean, mean_std"),
        ("omega", 1, "unknown key sdar.step_groups.omega"),
    ],
)
def test_step_groups_are_checked(key, value, message):
    with pytest.raises(ConfigError, match=message):
        read(f"sdar.step_groups.{key}", value)


def with_teacher(**changes):
    config = copy.deepcopy(CONFIG)
    config["sdar"]["teacher"] |= {"placement": "ref", **changes}
    return config


def test_the_teacher_has_its_weights_from_one_place():
    assert Settings.from_config(with_teacher(update_rate=0.05)).teacher.set_weights == ["sdar.teacher.update_rate"]
    with pytest.raises(ConfigError, match="update_rate and sdar.teacher.model_path each say whose weights"):
        Settings.from_config(with_teacher(update_rate=0.05, model_path="other"))


def test_a_trust_region_needs_logits():
    with pytest.raises(ConfigError, match="mixes logits, which a score of the sampled tokens lacks"):
        Settings.from_config(with_teacher(trust_region=0.5))
    config = with_teacher(trust_region=0.5)
    config["sdar"]["distillation"] |= {"gate": "none", "divergence": "full"}
    assert Settings.from_config(config).teacher.trust_region == 0.5


def test_skills_beside_other_contexts_must_be_shown():
    config = copy.deepcopy(CONFIG)
    config["sdar"]["context"]["parts"] = ["skills", "demonstration"]
    assert Settings.from_config(config).uses_skills
    config["sdar"]["skills"]["retriever"] = "none"
    with pytest.raises(ConfigError, match="take `skills` out of sdar.context.parts"):
        Settings.from_config(config)
    config["sdar"]["context"]["parts"] = ["demonstration"]
    assert not Settings.from_config(config).uses_skills


def test_a_teacher_that_sees_and_weighs_alike_is_refused():
    config = with_teacher(update_rate=1.0)
    config["sdar"]["context"]["parts"] = []
    with pytest.raises(ConfigError, match="make teacher and student the same"):
        Settings.from_config(config)
    config["sdar"]["teacher"]["update_rate"] = 0.5
    assert Settings.from_config(config).context.parts == ()


def test_contexts_are_for_teachers():
    config = copy.deepcopy(CONFIG)
    config["sdar"]["distillation"]["enabled"] = False
    config["sdar"]["context"]["parts"] = ["reference"]
    with pytest.raises(ConfigError, match="is for a teacher, and there is none"):
        Settings.from_config(config)


def test_a_retriever_that_learns_chooses_before_the_episode_and_for_training_only():
    config = copy.deepcopy(CONFIG)
    config["sdar"]["skills"]["retriever"] = "ucb"
    assert Settings.from_config(config).skills.learns
    config["sdar"]["context"]["parts"] = ["skills", "demonstration"]
    with pytest.raises(ConfigError, match="the context demonstration is known only after it; take one of them out"):
        Settings.from_config(config)
    config["sdar"]["context"]["parts"] = ["skills"]
    config["sdar"]["distillation"]["enabled"] = False
    for student in ("train", "always"):
        config["sdar"]["skills"]["student"] = student
        if student == "train":
            assert Settings.from_config(config).uses_skills
        else:
            with pytest.raises(ConfigError, match="which a validation must not; set sdar.skills.student=train"):
                Settings.from_config(config)


def test_step_groups_need_step_rows():
    config = copy.deepcopy(CONFIG)
    config["sdar"] |= {"rows": "trajectory", "step_groups": {"weight": 1.0, "gamma": 0.95, "norm": "mean"}}
    with pytest.raises(ConfigError, match="set sdar.rows=step"):
        Settings.from_config(config)


def test_a_moving_average_needs_the_reference_model():
    with pytest.raises(ConfigError, match="set sdar.teacher.placement=ref"):
        read("sdar.teacher.update_rate", 0.05)
    for key, value, message in (
        ("update_rate", 0, r"must lie in \(0, 1\] or be null"),
        ("sync_steps", 0, "whole number from 1"),
        ("sync_steps", 5, "no effect without sdar.teacher.update_rate"),
    ):
        with pytest.raises(ConfigError, match=message):
            read(f"sdar.teacher.{key}", value)


def test_what_would_have_no_effect_is_refused():
    config = copy.deepcopy(CONFIG)
    config["sdar"]["distillation"]["rl"] = False
    config["sdar"]["step_groups"] = {"weight": 1.0, "gamma": 0.95, "norm": "mean"}
    with pytest.raises(ConfigError, match="which sdar.distillation.rl=false takes out"):
        Settings.from_config(config)
    config = copy.deepcopy(CONFIG)
    config["sdar"]["distillation"]["enabled"] = False
    config["sdar"]["teacher"] |= {"placement": "ref", "update_rate": 0.05}
    with pytest.raises(ConfigError, match="would only change the KL term's reference"):
        Settings.from_config(config)


def test_guards_are_read_and_those_without_anything_to_watch_left_out():
    assert set(Settings.from_config(CONFIG).guards) == set(GUARDS)
    config = copy.deepcopy(CONFIG)
    config["sdar"]["distillation"]["enabled"] = False
    assert set(Settings.from_config(config).guards) == set(GUARDS) - {"gate_saturation"}
    average = with_teacher(update_rate=0.05)
    assert set(Settings.from_config(average).guards) == set(GUARDS) - {"kl_blowup"}
    average["actor_rollout_ref"]["actor"]["loss_agg_mode"] = "seq-mean-token-sum"
    assert set(Settings.from_config(average).guards) == set(GUARDS) - {"kl_blowup", "entropy_collapse"}
    config["sdar"]["guards"]["kl"] = {}
    with pytest.raises(ConfigError, match="unknown guard sdar.guards.kl"):
        Settings.from_config(config)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_padding_rows_are_spread_over_the_updates(platform):
    """verl's rows that fill up a batch stand last; unshuffled, a step's last update would be made of them."""
    actor = composed([f"platform={platform}"]).actor_rollout_ref.actor
    assert actor.shuffle and actor.use_dynamic_bsz
