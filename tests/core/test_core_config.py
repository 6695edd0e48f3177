"""Settings and schedules: what is accepted, what is refused and what the refusal says."""

import math
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar_verl.core import DistillationConfig, ScheduleConfig
from sdar_verl.core.schedules import SCHEDULES, schedule_factor


def test_defaults_are_the_papers():
    config = DistillationConfig()
    assert (config.coef, config.beta, config.gate, config.divergence) == (0.01, 5.0, "gap", "sampled_token")
    assert [config.coef_at(step) for step in (1, 75, 150)] == [0.01] * 3


def test_frozen():
    with pytest.raises(FrozenInstanceError):
        DistillationConfig().coef = 1.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"coef": -0.01}, r"coef \(lambda\) must be a finite number >= 0, got -0.01"),
        ({"coef": math.nan}, "coef"),
        ({"coef": "0.01"}, "coef"),
        ({"coef": True}, "coef"),
        ({"beta": 0.0}, "beta must be a finite number > 0, got 0.0.*gate=none"),
        ({"beta": math.inf}, "beta"),
        ({"gate": "gpa"}, "unknown gate 'gpa'; known: entropy, gap, hard, none, soft_or"),
        ({"divergence": "kl"}, "unknown divergence 'kl'; known: full, k3, sampled_token, topk"),
        ({"lambda": 0.1}, "unknown key in distillation: lambda; known: place, rl, coef, gate, beta"),
        ({"place": "reward"}, "unknown place 'reward'; known: loss, advantage"),
        ({"rl": "no"}, "rl must be true or false"),
        ({"rl": False, "coef": 0}, "nothing to learn from"),
        ({"gate_baseline": "median"}, "unknown gate_baseline 'median'; known: none, half, mean"),
        ({"gate": "none", "gate_baseline": "mean"}, "same constant"),
        ({"gate_threshold": math.nan}, "gate_threshold must be a finite number"),
        ({"importance_ratio": "yes"}, "unknown importance_ratio 'yes'; known: none, detached, attached"),
        ({"alpha": 0.0}, "sees the sampled token alone.*set divergence=topk or full"),
        ({"alpha": 2, "divergence": "full"}, r"alpha must lie in \[0, 1\]"),
        ({"topk": 0, "divergence": "topk"}, "topk must be a whole number from 1"),
        ({"divergence": "topk", "topk_support": "both"}, "unknown topk_support 'both'; known: student, teacher, union"),
        ({"divergence": "topk", "topk_tail": "none"}, "unknown topk_tail 'none'; known: bucket, renormalise"),
        ({"divergence_clip": 0, "divergence": "full"}, "divergence_clip must be a number > 0 or null"),
        ({"divergence_clip": 1.0}, "divergence_clip=null"),
        ({"divergence": "k3", "importance_ratio": "attached", "divergence_clip": 1.0}, "push away the very tokens"),
        ({"divergence": "full", "topk": 50}, "no effect with divergence=full; set divergence=topk"),
        ({"importance_ratio": "attached"}, "away from the teacher.*divergence=k3"),
        ({"divergence": "k3", "gate_baseline": "half"}, "control variate of the sampled-token term alone"),
        ({"ratio_clip": 2.0}, "set importance_ratio=detached or attached"),
        ({"importance_ratio": "detached", "ratio_clip": 0}, "ratio_clip must be a finite number > 0 or null"),
        ({"advantage": "evidence"}, "no effect with place=loss"),
        ({"place": "advantage"}, "needs advantage, one of evidence, reverse_kl"),
        ({"place": "advantage", "advantage": "opd", "gate": "none"}, "unknown advantage 'opd'"),
        ({"place": "advantage", "advantage": "evidence"}, r"no effect: gate=gap \(set none\)"),
        (
            {"place": "advantage", "advantage": "evidence", "gate": "none", "divergence": "k3"},
            r"divergence=k3 \(set sampled_token\)",
        ),
        ({"place": "advantage", "advantage": "evidence", "gate": "none", "rl": False}, "set rl=true"),
        ({"place": "advantage", "advantage": "evidence", "gate": "none", "coef": 1.5}, r"share in \[0, 1\], got 1.5"),
        ({"evidence_clip": 1.0}, "evidence_clip must lie between 0 and 1"),
        ({"schedule": "cosinus"}, "unknown schedule 'cosinus'; known: constant, cosine, linear_decay, linear_warmup"),
        ({"schedule": {"name": "cosine"}}, "schedule=cosine needs steps"),
        ({"schedule": {"name": "cosine", "steps": 0}}, "at least 1; got 0"),
        ({"schedule": {"name": "cosine", "steps": 5, "floor": 1.5}}, r"floor must lie in \[0, 1\]"),
        ({"schedule": {"name": "linear_warmup", "steps": 5, "floor": 0.5}}, "takes no floor"),
        ({"schedule": {"name": "constant", "steps": 5}}, "takes neither steps nor floor"),
        ({"schedule": {"name": "constant", "step": 5}}, "unknown key in distillation.schedule: step; known: name"),
    ],
)
def test_refused_with_what_to_set(values, message):
    with pytest.raises(ValueError, match=message):
        DistillationConfig.from_mapping(values)


def test_schedule_of_a_wrong_type_is_refused():
    with pytest.raises(TypeError, match="name or a mapping"):
        DistillationConfig.from_mapping({"schedule": 3})


def test_schedule_from_name_mapping_and_object_agree():
    forms = ["constant", {"name": "constant", "steps": None, "floor": 0.0}, ScheduleConfig()]
    assert len({DistillationConfig(schedule=form) for form in forms}) == 1


def test_linear_decay_to_zero_over_100_steps():
    config = DistillationConfig(coef=0.5, schedule={"name": "linear_decay", "steps": 100})
    assert config.coef_at(1) == 0.5
    assert config.coef_at(51) == pytest.approx(0.25)
    assert config.coef_at(101) == 0.0
    assert config.coef_at(1000) == 0.0


def test_linear_warmup_starts_above_zero_and_arrives():
    config = ScheduleConfig("linear_warmup", steps=4)
    assert [schedule_factor(config, step) for step in (1, 2, 4, 9)] == [0.25, 0.5, 1.0, 1.0]


def test_cosine_is_halfway_at_half_time():
    config = ScheduleConfig("cosine", steps=10, floor=0.2)
    assert schedule_factor(config, 6) == pytest.approx(0.6)
    assert schedule_factor(config, 11) == pytest.approx(0.2)


@given(
    name=st.sampled_from(SCHEDULES.names()), steps=st.integers(1, 300), floor=st.floats(0, 1), step=st.integers(1, 400)
)
def test_every_schedule_stays_in_range_and_moves_one_way(name, steps, floor, step):
    ramp = {} if name == "constant" else {"steps": steps}
    decays = name in ("linear_decay", "cosine")
    config = ScheduleConfig(name, **ramp, floor=floor if decays else 0.0)
    here, later = schedule_factor(config, step), schedule_factor(config, step + 1)
    assert 0.0 <= here <= 1.0
    assert later <= here + 1e-12 if decays else later >= here
    if decays:
        assert here >= floor - 1e-12


def test_steps_count_from_one():
    with pytest.raises(ValueError, match="count from 1"):
        DistillationConfig().coef_at(0)
