"""Memory against worked examples, and what must hold for any job."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_jobs import JOBS, plain_job, recipe_job

from sdar_verl.core import distributions
from sdar_verl.core.gates import GATES
from sdar_verl.plan import host, memory
from sdar_verl.plan.job import ENTROPY_GATES
from sdar_verl.plan.units import GIB, PlanError

STATE = ("actor weights", "gradients", "optimizer", "activations", "logits")


def training(job):
    parts = memory.estimate(job, 80 * GIB).phases["update"]
    return sum(parts[part] for part in STATE) / GIB


@pytest.mark.parametrize(
    ("model", "peaks"),
    [
        ("Qwen/Qwen2.5-1.5B-Instruct", {1: 31.2, 4: 14.0, 8: 11.1}),
        ("Qwen/Qwen2.5-3B-Instruct", {1: 54.8, 4: 20.3, 8: 14.6}),
        ("Qwen/Qwen2.5-7B-Instruct", {1: 123, 4: 38.2, 8: 24.0}),
        ("Qwen/Qwen3-8B", {1: 132, 4: 40.8, 8: 25.5}),
    ],
)
def test_worked_training_peaks_of_the_reference(model, peaks):
    """States, block inputs, one block and logits at 8,192 tokens, without reference and with the engine asleep."""
    for gpus, wanted in peaks.items():
        found = training(plain_job(model, gpus=gpus))
        assert found == pytest.approx(wanted, abs=0.06 if wanted < 100 else 0.6)


def test_the_published_micro_batch_of_32_rows_asks_for_70_gib_of_logits():
    job = plain_job("Qwen/Qwen2.5-3B-Instruct", update_tokens=32 * 2560)
    assert memory.estimate(job, 80 * GIB).phases["update"]["logits"] / GIB == pytest.approx(69.5, abs=0.1)


@pytest.mark.parametrize(("model", "gib"), [("Qwen/Qwen2.5-1.5B-Instruct", 17), ("Qwen/Qwen2.5-3B-Instruct", 34),
                                            ("Qwen/Qwen2.5-7B-Instruct", 85)])  # fmt: skip
def test_checkpoints_hold_weights_and_moments(model, gib):
    assert host.estimate(plain_job(model), 0).checkpoint / GIB == pytest.approx(gib, abs=0.6)


def test_logits_by_what_is_computed_from_them():
    def per_number(**changes):
        job = plain_job(**changes)
        return memory.estimate(job, 80 * GIB).phases["update"].get("logits", 0) / (job.model.vocab * job.update_tokens)

    assert per_number(entropy=False) == 2  # the cross entropy's gradient takes the place of the logits
    assert per_number(entropy=False, distribution=True, teacher="actor") == 6  # three, of which each needs its own
    assert per_number() == per_number(distribution=True, teacher="actor") == 6
    assert per_number(compiled=False) == 16
    assert per_number(unit_temperature=False) == 8
    assert per_number(fused=True) == 0


@pytest.mark.slow
def test_entropy_keeps_what_the_plan_says():
    """What verl's entropy saves for its backward pass beside the logits, in bytes a number: nothing where compiled."""
    from verl.utils.torch_functional import entropy_from_logits

    def kept(function):
        logits = torch.randn(32, 500, dtype=torch.bfloat16, requires_grad=True)
        found = {}

        def keep(tensor):
            found[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            function(logits)
        found.pop(logits.data_ptr(), None)
        return sum(found.values()) / logits.numel()

    def in_float32(logits):  # as autocast has it on GPUs
        return entropy_from_logits(logits.float())

    assert kept(torch.compile(in_float32, backend="aot_eager_decomp_partition")) < 0.1
    assert memory.EAGER_ENTROPY / 2 < kept(in_float32) <= memory.EAGER_ENTROPY


def test_the_7b_recipe_does_not_fit_p4d_and_fits_80_gb():
    job = recipe_job()
    small, large = memory.estimate(job, 40 * GIB), memory.estimate(job, 80 * GIB)
    assert small.total("update") > 40 * GIB > small.total("rollout")
    assert large.peak < 80 * GIB
    assert small.phases["update"] == large.phases["update"], "only the rollout grows with the GPU"


def test_the_reference_costs_main_memory_and_the_teacher_nothing():
    """verl keeps forward-only FSDP models on the host; the self-teacher has the policy's own weights."""
    with_both, bare = recipe_job(), recipe_job("method=grpo", "actor_rollout_ref.actor.use_kl_loss=false")
    assert with_both.reference and not bare.reference and with_both.teacher == "actor" and bare.teacher is None
    gpu = [memory.estimate(job, 80 * GIB) for job in (with_both, bare)]
    assert gpu[0].phases == gpu[1].phases
    main = [host.estimate(job, 0).memory for job in (with_both, bare)]
    assert main[0]["reference"] == 2 * with_both.model.params
    assert {k: v for k, v in main[0].items() if k != "reference"} == main[1]


def test_whole_distributions_cost_a_pass_of_the_teacher():
    job = plain_job(teacher="actor")
    more = replace(job, distribution=True)
    parts = memory.estimate(more, 80 * GIB).phases["update"]
    rows = more.update_tokens // more.row
    assert parts["teacher"] > 2 * 2 * job.model.vocab * rows * job.response, "its logits, in their order too"
    longer = memory.estimate(replace(more, teacher_prompt=2 * job.teacher_prompt), 80 * GIB).phases["update"]["teacher"]
    assert longer - parts["teacher"] < 2 * job.model.vocab * rows * job.teacher_prompt, "no logits of its prompts"
    mixed = memory.estimate(replace(more, trust_region=True), 80 * GIB).phases["update"]["teacher"]
    assert mixed - parts["teacher"] == 4 * job.model.vocab * rows * job.response
    assert memory.FULL_CHUNK == distributions.CHUNK


def test_a_teacher_elsewhere_takes_nothing_here_but_the_logits_of_a_prompt():
    without, remote, rollout = (memory.estimate(plain_job(teacher=t), 80 * GIB) for t in (None, "remote", "rollout"))
    assert remote.phases == without.phases
    more = rollout.total("rollout") - without.total("rollout")
    assert more == 10 * plain_job().model.vocab * (4096 + 512) and rollout.kv_need > without.kv_need
    assert recipe_job("sdar.teacher.placement=rollout").teacher == "rollout"


def test_offloading_moves_what_it_says():
    job = plain_job()
    parts = memory.estimate(job.with_(param_offload=True, optimizer_offload=True), 80 * GIB).phases
    assert "optimizer" not in parts["rollout"] and "actor weights" not in parts["rollout"]
    assert parts["update"] == memory.estimate(job, 80 * GIB).phases["update"], "verl loads all of it for the update"
    away = memory.estimate(job.with_(cpu_offload=True), 80 * GIB).phases["update"]
    assert not {"optimizer", "actor weights", "gradients"} & set(away)
    assert host.estimate(job.with_(cpu_offload=True), 0).memory["offloaded training state"] == 16 * job.model.params


def test_lora_keeps_the_base_in_the_kept_type():
    """verl casts adapters to the base's type, which is float32 unless fsdp_config.model_dtype says otherwise."""
    job = plain_job(lora_rank=32)
    parts = memory.estimate(job, 80 * GIB).phases["update"]
    assert parts["actor weights"] == 4 * (job.model.params + job.trainable) / 8
    assert parts["optimizer"] == 8 * job.trainable / 8
    half = memory.estimate(job.with_(weight_bytes=2), 80 * GIB).phases["update"]
    assert half["actor weights"] == parts["actor weights"] / 2


def test_weights_that_are_not_given_up_stay():
    kept, given = (memory.estimate(plain_job(reshards=r), 80 * GIB).phases["score"]["gathered weights"] for r in (0, 1))
    assert kept == 2 * plain_job().model.params > given


def test_gates_that_need_the_entropy_cost_its_logits():
    assert set(ENTROPY_GATES) == {name for name in GATES.names() if "entropy" in GATES.needs(name)}
    plain = "actor_rollout_ref.actor.entropy_coeff=0"
    assert recipe_job(plain, "sdar.distillation.gate=entropy").entropy and not recipe_job(plain).entropy


def test_an_engine_that_does_not_sleep_stays():
    asleep, awake = (memory.estimate(plain_job(sleeps=s), 80 * GIB) for s in (True, False))
    assert awake.total("update") - asleep.total("update") == pytest.approx(40 * GIB - memory.ENGINE_CONTEXT)


# --- what must hold for any job ---------------------------------------------------------------------------------------


def totals(job):
    found = memory.estimate(job, 80 * GIB)
    return {phase: found.total(phase) for phase in found.phases} | {"need": found.kv_need}


def never_more(smaller, larger):
    small, large = totals(smaller), totals(larger)
    assert all(small[phase] <= large[phase] * (1 + 1e-12) for phase in small), (small, large)


@settings(max_examples=60)
@given(JOBS)
def test_more_shards_never_take_more(job):
    never_more(job.with_(gpus=2 * job.gpus, shards=2 * job.gpus), job)


@settings(max_examples=60)
@given(JOBS, st.integers(0, 30_000), st.integers(0, 4096))
def test_longer_contexts_and_micro_batches_never_take_less(job, tokens, answer):
    longer = job.with_(
        prompt=job.prompt + tokens, response=job.response + answer, update_tokens=job.update_tokens + tokens + answer,
        score_tokens=job.score_tokens + tokens + answer,
    )  # fmt: skip
    never_more(job, longer)


@settings(max_examples=60)
@given(JOBS)
def test_each_saving_saves(job):
    never_more(job.with_(sleeps=True), job)
    never_more(job.with_(fused=True), job)
    never_more(job.with_(compiled=True), job)
    never_more(job.with_(cpu_offload=True), job)
    never_more(job.with_(param_offload=True, optimizer_offload=True), job)
    never_more(job.with_(checkpointing=True), job)
    never_more(job.with_(entropy=False), job)


@settings(max_examples=40)
@given(JOBS)
def test_every_part_is_named_and_positive(job):
    found = memory.estimate(job, 80 * GIB)
    assert set(memory.ALWAYS) <= set(found.phases)
    assert tuple(found.phases) == tuple(phase for phase in memory.PHASES if phase in found.phases)
    for parts in found.phases.values():
        assert set(parts) <= set(memory.PARTS) and all(size > 0 for size in parts.values())
    assert found.peak == max(found.total(phase) for phase in found.phases)


def test_impossible_shapes_are_refused():
    with pytest.raises(PlanError, match="does not divide"):
        plain_job(gpus=8, tp=3)
    with pytest.raises(PlanError, match="placement='cloud' is unknown; known: actor"):
        plain_job(teacher="cloud")
    with pytest.raises(PlanError, match="gpu_memory_utilization"):
        plain_job(utilization=1.2)
