"""Guards on made-up runs: what they find, what they let pass, and what they need to see."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from sdar_verl import guards
from sdar_verl.errors import ConfigError
from sdar_verl.guards import GUARDS, GuardSettings, evaluate, guard_settings, watched, zero_advantage_share
from sdar_verl.quickstart.plan import CONFIG

DEFAULTS = OmegaConf.to_container(OmegaConf.load(CONFIG / "sdar.yaml").sdar.guards)
HEALTHY = {
    guards.ENTROPY: 0.3,
    guards.KL: 0.02,
    guards.GATE_ENDS[0]: 0.05,
    guards.GATE_ENDS[1]: 0.05,
    guards.ZERO_ADVANTAGE: 0.4,
    guards.VALID: 0.95,
    guards.REWARD: 2.0,
}
SICK = {
    "entropy_collapse": {guards.ENTROPY: 0.001},
    "kl_blowup": {guards.KL: 30.0},
    "gate_saturation": {guards.GATE_ENDS[0]: 0.5, guards.GATE_ENDS[1]: 0.49},
    "zero_advantage": {guards.ZERO_ADVANTAGE: 1.0},
    "invalid_actions": {guards.VALID: 0.4, guards.REWARD: 3.0},
}


def run_of(sick: dict[str, float], healthy: int = 10, ill: int = 10) -> dict[int, dict[str, float]]:
    return {step: HEALTHY | (sick if step > healthy else {}) for step in range(1, healthy + ill + 1)}


def test_the_shipped_settings_name_every_guard_and_stop_nothing():
    assert set(DEFAULTS) == set(GUARDS) == set(SICK)
    assert {own.action for own in guard_settings(DEFAULTS).values()} == {"warn"}
    assert evaluate(run_of({}), guard_settings(DEFAULTS)) == []


@pytest.mark.parametrize("name", SICK)
def test_each_guard_finds_its_own_illness_alone(name):
    (found,) = evaluate(run_of(SICK[name]), guard_settings(DEFAULTS))
    assert (found.guard, found.step, found.action) == (name, 20, "warn")
    assert found.limit == DEFAULTS[name]["limit"]
    assert "{" not in found.message and len(found.message) > 30


@pytest.mark.parametrize("name", [name for name in SICK if name != "invalid_actions"])
def test_a_guard_waits_for_its_steps_in_a_row(name):
    settings = guard_settings(DEFAULTS)
    steps = settings[name].steps
    assert evaluate(run_of(SICK[name], ill=steps - 1), settings) == []
    assert len(evaluate(run_of(SICK[name], ill=steps), settings)) == 1
    broken = run_of(SICK[name], ill=steps)
    broken[max(broken) - 1] = HEALTHY
    assert evaluate(broken, settings) == []


def test_invalid_actions_that_cost_reward_are_no_hacking():
    settings = {"invalid_actions": GuardSettings("stop", 0.2, 5)}
    assert evaluate(run_of({guards.VALID: 0.4, guards.REWARD: 1.0}), settings) == []
    assert evaluate(run_of({guards.VALID: 0.9, guards.REWARD: 5.0}), settings) == []
    always = {step: HEALTHY | {guards.VALID: 0.1, guards.REWARD: step} for step in range(1, 21)}
    assert evaluate(always, settings) == []  # a beginner that learns is no cheat
    assert evaluate(run_of(SICK["invalid_actions"]), settings)[0].value == pytest.approx(0.55)


def test_a_step_that_lacks_a_metric_says_nothing_and_breaks_no_row():
    settings = {"kl_blowup": GuardSettings("warn", 1.0, 3)}
    history = {1: {guards.KL: 5.0}, 2: {guards.KL: 5.0}, 3: {}, 4: {guards.KL: 5.0}}
    assert len(evaluate(history, settings)) == 1
    assert evaluate(history | {5: {}}, settings) == []
    assert evaluate({}, settings) == []


@given(
    values=st.lists(st.floats(0, 10), min_size=1, max_size=12), limit=st.floats(0, 10), steps=st.integers(1, 5)
)  # the definition, written a second time
def test_a_bound_is_passed_in_every_one_of_the_last_steps(values, limit, steps):
    history = {i: {guards.KL: value, guards.ENTROPY: value} for i, value in enumerate(values, 1)}
    own = GuardSettings("warn", limit, steps)
    found = {f.guard for f in evaluate(history, {"kl_blowup": own, "entropy_collapse": own})}
    tail = values[-steps:]
    assert ("kl_blowup" in found) == (len(tail) == steps and min(tail) > limit)
    assert ("entropy_collapse" in found) == (len(tail) == steps and max(tail) < limit)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"entropy": {}}, "unknown guard sdar.guards.entropy;.*known: entropy_collapse"),
        ({"kl_blowup": {"action": "shout", "limit": 1, "steps": 1}}, "kl_blowup: action='shout'.*off, warn, stop"),
        ({"kl_blowup": {"action": "warn", "limit": "much", "steps": 1}}, "limit must be a finite number"),
        ({"kl_blowup": {"action": "warn", "limit": float("nan"), "steps": 1}}, "limit must be a finite number"),
        ({"kl_blowup": {"action": "warn", "limit": 1, "steps": 0}}, "steps must be a whole number"),
        ({"kl_blowup": {"action": "warn", "limit": 1, "stepz": 1}}, "keys: action, limit, steps"),
    ],
)
def test_wrong_settings_are_refused_by_name(change, words):
    with pytest.raises(ConfigError, match=words):
        guard_settings(DEFAULTS | change)
    with pytest.raises(ConfigError, match="missing sdar.guards.kl_blowup"):
        guard_settings({name: part for name, part in DEFAULTS.items() if name != "kl_blowup"})


IDLE = {
    "a gate": (("gap", "token-mean", False), set()),
    **{f"gate {gate}": ((gate, "token-mean", False), {"gate_saturation"}) for gate in ("none", "hard", None)},
    "a teacher in the reference": (("gap", "token-mean", True), {"kl_blowup"}),
    "sums over tokens": (("gap", "seq-mean-token-sum", False), {"kl_blowup", "entropy_collapse"}),
}


@pytest.mark.parametrize("case", IDLE)
def test_a_guard_that_has_nothing_to_watch_is_left_out_and_cannot_stop(case):
    (gate, mode, teacher), left_out = IDLE[case]
    why = guards.idle(gate, mode, teacher_in_reference=teacher)
    settings = guard_settings(DEFAULTS | {"zero_advantage": {"action": "off", "limit": 1, "steps": 1}})
    assert set(watched(settings, why)) == set(GUARDS) - {"zero_advantage"} - left_out
    for name in left_out:
        with pytest.raises(ConfigError, match=f"{name}.action=stop has nothing to watch: .*; set it to off"):
            watched(settings | {name: GuardSettings("stop", 0.9, 3)}, why)


def test_only_a_guard_that_must_stop_complains_that_it_is_blind():
    history = {1: {name: value for name, value in HEALTHY.items() if name != guards.KL}}
    settings = guard_settings(DEFAULTS)
    assert guards.blind(history, settings) == {}
    settings["kl_blowup"] = settings["entropy_collapse"] = GuardSettings("stop", 1.0, 1)
    assert guards.blind(history, settings) == {"kl_blowup": [guards.KL]}


def test_share_of_groups_without_a_signal():
    assert zero_advantage_share({"a": [1.0, 1.0], "b": [0.0, 1.0, 1.0, 1.0]}) == pytest.approx(2 / 6)
    assert zero_advantage_share({"a": [-1.4, -1.4000000000000001]}) == 1.0
    assert zero_advantage_share({"a": [-1.4, -1.3]}) == 0.0
