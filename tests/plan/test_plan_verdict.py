"""What the planner proposes is what the configuration then is, and it does fit."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_jobs import JOBS, RECIPE, plain_job, recipe_job

from sdar_verl.plan import host, memory, verdict
from sdar_verl.plan.catalogue import load_catalogue
from sdar_verl.plan.compose import compose
from sdar_verl.plan.units import GIB, PlanError

CATALOGUE = load_catalogue()
TOKENS = 2e6


def judged(job, instance):
    place = CATALOGUE.get(instance)
    return verdict.judge(job, place, memory.estimate(job, place.gpu_bytes), host.estimate(job, TOKENS))


def test_the_7b_recipe_needs_smaller_micro_batches_on_p4d():
    job, place = recipe_job(), CATALOGUE.get("p4d")
    assert judged(job, "p4d").word == "no"
    changed, overrides = verdict.solve(job, place, TOKENS)
    assert overrides == ("actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192",)
    assert judged(changed, "p4d").word == "fits"


@pytest.mark.parametrize("instance", ["p4de", "p5", "p5en"])
def test_it_fits_where_gpus_have_80_gb(instance):
    job, place = recipe_job(), CATALOGUE.get(instance)
    assert judged(job, instance).word == "fits"
    assert verdict.changes(job, place, TOKENS) == []
    assert verdict.solve(job, place, TOKENS) == (job, ())


def proposals():
    """The changes that are proposed for the recipe in three states, one of each kind."""
    found, kinds = {}, set()
    for name, base in (("p4d", ()), ("p4d", ("method=opsd",)),
                       ("p4d", ("actor_rollout_ref.model.enable_gradient_checkpointing=false",
                                "actor_rollout_ref.rollout.free_cache_engine=false"))):  # fmt: skip
        job = recipe_job(*base)
        for change in verdict.changes(job, CATALOGUE.get(name), TOKENS):
            kind = tuple(override.partition("=")[0] for override in change.overrides)
            if kind not in kinds:
                found[base, change.overrides] = change
                kinds.add(kind)
    return found


PROPOSALS = proposals()


def test_many_kinds_of_change_are_proposed():
    keys = {o.partition("=")[0].rpartition(".")[2] for _, overrides in PROPOSALS for o in overrides}
    assert keys >= {
        "ppo_max_token_len_per_gpu", "offload_policy", "lora_rank",
        "enable_gradient_checkpointing", "free_cache_engine", "divergence",
    }  # fmt: skip


@pytest.mark.parametrize("key", PROPOSALS, ids=lambda key: " ".join(o.rpartition(".")[2] for o in (*key[0], *key[1])))
def test_overrides_do_to_the_configuration_what_the_plan_says(key):
    """The recipe itself, composed with the proposed overrides, gives the very job that the proposal was judged by."""
    base, overrides = key
    assert recipe_job(*base, *overrides) == PROPOSALS[key].job


def test_a_proposal_that_fits_fits():
    assert any(change.fits for change in PROPOSALS.values())
    for (base, overrides), change in PROPOSALS.items():
        if not base and change.fits and change.memory.peak < 40 * GIB:
            assert verdict.judge(change.job, CATALOGUE.get("p4d"), memory.estimate(change.job, 40 * GIB),
                                 host.estimate(change.job, TOKENS)).ok, overrides  # fmt: skip


@settings(max_examples=40)
@given(JOBS, st.sampled_from(list(CATALOGUE.instances)))
def test_a_solution_fits_and_names_every_change(job, name):
    place = CATALOGUE.get(name)
    solved = verdict.solve(job, place, TOKENS)
    if solved is not None:
        changed, overrides = solved
        assert verdict.judge(
            changed, place, memory.estimate(changed, place.gpu_bytes), host.estimate(changed, TOKENS)
        ).ok
        assert (changed == job) == (not overrides)


def test_more_room_means_larger_micro_batches():
    job, place = recipe_job(), CATALOGUE.get("p5en")
    spare = verdict.spare(job, place)
    tokens = int(re.fullmatch(r".*ppo_max_token_len_per_gpu=(\d+)", spare.overrides[0])[1])
    assert tokens > job.update_tokens and spare.memory.peak < 0.9 * place.gpu_bytes
    assert recipe_job(*spare.overrides) == spare.job
    assert verdict.spare(recipe_job(), CATALOGUE.get("p4d")) is None


def test_each_obstacle_is_named():
    job = plain_job(max_model_len=4608)
    assert "has 4" in judged(job, "g6e.24xlarge").problems[0]
    assert any(
        "refuses to start" in p for p in judged(job.with_(utilization=0.2, gpus=1, shards=1), "g6.xlarge").problems
    )
    starved = judged(job.with_(utilization=0.45, tasks=512), "p4d")
    assert any("some will wait" in w for w in starved.warnings)
    assert any("environment processes" in w for w in starved.warnings)
    idle = judged(job.with_(gpus=4, shards=4), "p5")
    assert any("4 of 8 GPUs stay idle" in w for w in idle.warnings)
    assert any("PCIe" in w for w in judged(job, "g7e.48xlarge").warnings)
    assert any("main memory" in p for p in judged(job.with_(gpus=1, shards=1, cpu_offload=True), "g6e.xlarge").problems)
    assert any("busy processes" in w for w in judged(job.with_(env_processes=500), "p5").warnings)
    assert any("disk" in w for w in judged(job.with_(gpus=1, shards=1), "g6e.xlarge").warnings)


def test_nothing_helps_where_nothing_can():
    job = plain_job("Qwen/Qwen3-30B-A3B", gpus=1)
    assert verdict.solve(job, CATALOGUE.get("g6.xlarge"), TOKENS) is None


def test_rows_of_a_micro_batch_are_read_where_it_is_not_cut_by_tokens():
    rows = ("actor_rollout_ref.actor.use_dynamic_bsz=false", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=32",
            "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
            "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=8")  # fmt: skip
    job = recipe_job(*rows)
    assert (job.dynamic, job.update_tokens, job.score_tokens) == (False, 32 * 2560, 8 * 4608)
    with pytest.raises(PlanError, match="ppo_micro_batch_size_per_gpu must say"):
        recipe_job("actor_rollout_ref.actor.use_dynamic_bsz=false")


def test_a_wrong_key_is_reported_in_hydras_words():
    with pytest.raises(PlanError, match="gpu_memory_utilisation"):
        compose(RECIPE, ["actor_rollout_ref.rollout.gpu_memory_utilisation=0.5"])
    with pytest.raises(PlanError, match="no recipe"):
        compose(RECIPE.with_name("missing.sh"), [])


def test_a_script_that_is_no_recipe_is_refused(tmp_path):
    script = tmp_path / "other.sh"
    script.write_text("echo hello\n")
    with pytest.raises(PlanError, match="no configuration of sdar_verl"):
        compose(script, [])
