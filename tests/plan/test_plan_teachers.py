"""Another model as teacher, and teacher servers of the run's own: memory, machines, time, money."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_jobs import JOBS, RECIPE, plain_job, recipe_job
from test_plan_models import TINY, VARIANTS

from sdar_verl.plan import calibration, comparison, host, memory, models, servers, timing, verdict, workload
from sdar_verl.plan.catalogue import load_catalogue
from sdar_verl.plan.compose import compose
from sdar_verl.plan.job import job_from_config
from sdar_verl.plan.planning import make_plan
from sdar_verl.plan.units import GIB, PlanError

CATALOGUE = load_catalogue()
TOKENS = 2e6
SERVER, SMALL = "sdar.teacher.placement=server", "actor_rollout_ref.model.path=Qwen/Qwen2.5-1.5B-Instruct"
LARGE = "sdar.teacher.model_path=Qwen/Qwen2.5-7B-Instruct"
AS_REFERENCE = ("sdar.teacher.placement=ref", LARGE, "actor_rollout_ref.actor.kl_loss_coef=0")
RATES = timing.Rates({"old": 0.3, "ref": 0.35, "values": 0.3, "teacher": 0.25}, 0.4, 0.5, 2.0, "made up", True)
WORK = workload.assumed(recipe_job())


def times(job, instance="p4de", rates=RATES):
    return timing.estimate(job, WORK, CATALOGUE.get(instance), rates, host.estimate(job, WORK.tokens(job)))


def judged(job, instance):
    place = CATALOGUE.get(instance)
    return verdict.judge(job, place, memory.estimate(job, place.gpu_bytes), host.estimate(job, TOKENS))


def planned(job, instance):
    from datetime import date

    return make_plan(job, title="t", catalogue=CATALOGUE, instance=instance, work=WORK, rates=RATES, mtbf_hours=24.0,
                     restart_seconds=900.0, today=date(2026, 11, 1))  # fmt: skip


# --- another model in verl's reference --------------------------------------------------------------------------------


def test_a_larger_teacher_in_the_reference_by_hand():
    """It lies in main memory in half precision, and its own blocks and logits are what a scoring pass needs."""
    job, own = recipe_job(SMALL, *AS_REFERENCE), recipe_job(SMALL)
    student, teacher = models.load("Qwen/Qwen2.5-1.5B-Instruct"), models.load("Qwen/Qwen2.5-7B-Instruct")
    assert (job.teacher, job.teacher_model, job.reference) == ("ref", teacher, True)
    assert host.estimate(job, 0).memory["reference"] == 2 * 7_615_616_512
    score = memory.estimate(job, 80 * GIB).phases["score"]
    assert score["gathered weights"] == 2 * (2 * 233_057_792 + 152_064 * 3584)
    assert score["activations"] == 16384 * (2 * (8 * 3584 + 3 * 18944) + 4 * 3584)
    assert score["logits"] == 2 * 152_064 * 16384
    assert memory.estimate(job, 80 * GIB).phases["update"] == memory.estimate(own, 80 * GIB).phases["update"]
    found, plain = times(job).phases, times(own).phases
    ratio = timing.model_flops(teacher, 1) / timing.model_flops(student, 1)
    assert found["ref"] == pytest.approx(plain["ref"] * ratio), "verl scores it once more as the reference"
    assert found["teacher"] == pytest.approx(plain["teacher"] * ratio)
    assert {k: v for k, v in found.items() if k not in ("ref", "teacher")} == {
        k: v for k, v in plain.items() if k not in ("ref", "teacher")
    }


def test_no_change_is_proposed_that_the_run_would_refuse():
    def keys(*overrides):
        found = verdict.changes(recipe_job(*overrides), CATALOGUE.get("g6.48xlarge"), TOKENS)
        return {o.partition("=")[0].rpartition(".")[2] for change in found for o in change.overrides}

    assert {"offload_policy", "lora_rank"} <= keys(AS_REFERENCE[0])
    other = keys(*AS_REFERENCE)
    assert "offload_policy" in other and "lora_rank" not in other, "adapters leave no reference to be the teacher"


@settings(max_examples=60)
@given(JOBS)
def test_another_model_of_the_same_size_costs_what_the_reference_does(job):
    job = job.with_(lora_rank=0, reference=True, kl=True, teacher="ref")
    other = job.with_(teacher_model=job.model)
    assert memory.estimate(other, 80 * GIB) == memory.estimate(job, 80 * GIB)
    assert host.estimate(other, TOKENS).memory == host.estimate(job, TOKENS).memory
    assert host.estimate(other, TOKENS).disk["teacher"] == 2 * job.model.params, "its files lie beside the policy's"
    assert times(other).phases == times(job).phases


@settings(max_examples=40)
@given(JOBS, st.sampled_from(["ref", "server", "remote"]), st.booleans())
def test_a_larger_teacher_never_takes_less(job, placement, distribution):
    job = job.with_(lora_rank=0, reference=True, kl=True, teacher=placement, servers=int(placement == "server"),
                    distribution=distribution and placement == "ref")  # fmt: skip
    small, large = (job.with_(teacher_model=models.load(f"Qwen/Qwen3-{size}")) for size in ("1.7B", "8B"))
    one, other = memory.estimate(small, 80 * GIB), memory.estimate(large, 80 * GIB)
    assert all(one.total(phase) <= other.total(phase) for phase in one.phases if phase != "server")
    assert all(one.phases["server"].get(p, 0) <= other.phases["server"][p] for p in ("teacher",) if job.servers)
    assert host.estimate(small, TOKENS).memory_peak <= host.estimate(large, TOKENS).memory_peak
    assert times(small).step <= times(large).step


def test_whole_distributions_of_a_reference_gather_its_weights_in_the_update():
    job = plain_job(teacher="ref", reference=True, kl=True, distribution=True)
    actor = memory.estimate(job.with_(teacher="actor"), 80 * GIB).phases["update"]["teacher"]
    more = memory.estimate(job, 80 * GIB).phases["update"]["teacher"] - actor
    assert more == 2 * (2 * job.model.largest_block + job.model.embedding)


def test_a_teacher_elsewhere_leaves_the_training_node_alone():
    remote = recipe_job(SMALL, "sdar.teacher.placement=remote", LARGE)
    own = recipe_job(SMALL, "sdar.teacher.placement=remote")
    assert remote.teacher_model is not None and own.teacher_model is None
    assert memory.estimate(remote, 80 * GIB) == memory.estimate(own, 80 * GIB)
    assert host.estimate(remote, TOKENS) == host.estimate(own, TOKENS)
    assert times(remote).phases == times(own).phases
    rows = [comparison.teachers(job, WORK, CATALOGUE.get("p4de"), RATES, CATALOGUE) for job in (own, remote)]
    assert [row.placement for row in rows[1]][0] == "ref" and {"actor", "rollout"} <= {r.placement for r in rows[0]}
    mine, theirs = ({r.where: r for r in found if r.placement == "remote"} for found in rows)
    assert theirs and set(theirs) <= set(mine), "it may not fit where the smaller one does"
    for name, row in theirs.items():
        assert row.step > mine[name].step, "a larger model takes longer"


def test_what_the_configuration_must_say(tmp_path):
    with pytest.raises(PlanError, match="has no use with sdar.teacher.placement=actor.*placement=ref, server, remote"):
        recipe_job(LARGE)
    with pytest.raises(PlanError, match="sdar.distillation.enabled=false"):
        recipe_job("method=grpo", LARGE)
    with pytest.raises(PlanError, match="model_path is not set"):
        recipe_job("method=opd")
    with pytest.raises(PlanError, match="takes the place of the reference model"):
        recipe_job(*AS_REFERENCE, "actor_rollout_ref.actor.use_kl_loss=false")
    with pytest.raises(PlanError, match="takes the place of the reference model"):
        recipe_job(*AS_REFERENCE, "actor_rollout_ref.model.lora_rank=8")
    with pytest.raises(PlanError, match="nothing is known about the model 'other'.*--teacher-config"):
        recipe_job(SERVER, "sdar.teacher.model_path=other")
    (tmp_path / "config.json").write_text(json.dumps(TINY | VARIANTS["mixtral"]))
    config = compose(RECIPE, [SERVER, "sdar.teacher.model_path=other"])
    found = job_from_config(config, models.load("Qwen/Qwen3-4B"), teacher=tmp_path / "config.json")
    assert found.scorer.experts == 4


# --- servers ----------------------------------------------------------------------------------------------------------


def test_a_servers_gpu_by_hand():
    """Weights of 7 B in half precision on 2 GPUs, 85 % of 80 GiB, and the logits of a pass beyond that share."""
    job = recipe_job(SMALL, SERVER, LARGE, "sdar.teacher.server.tensor_parallel_size=2")
    assert (job.servers, job.server_tp, job.server_gpus, job.server_share) == (1, 2, 2, 0.85)
    found, without = memory.estimate(job, 80 * GIB), memory.estimate(job.with_(servers=0), 80 * GIB)
    assert {phase: found.phases[phase] for phase in without.phases} == without.phases, "none of the trainer's"
    server = found.phases["server"]
    assert server["teacher"] == 7_615_616_512
    assert server["KV cache"] == pytest.approx(0.85 * 80 * GIB - 7_615_616_512 - 1.5 * GIB)
    assert server["logits"] == 10 * 152_064 * 2048
    assert servers.longest(job) == (4096 + 512 + 1) * 57_344 / 2
    assert host.estimate(job, 0).memory["teacher servers"] == 2 * host.ENGINE_PROCESS


@pytest.mark.slow
def test_a_server_reads_as_many_tokens_at_once_as_the_plan_says():
    from sdar_verl.compat import teacher_pool

    assert servers.PASS_TOKENS == teacher_pool.PASS_TOKENS


def test_its_time_by_hand_and_its_rate_from_a_finished_run():
    job = recipe_job(SMALL, SERVER, LARGE, "sdar.teacher.server.replicas=3")
    tokens, second = WORK.teacher_tokens(job), CATALOGUE.get("p4de").bf16_flops
    body = 7_615_616_512 - 152_064 * 3584
    assert times(job).phases["teacher"] == pytest.approx(2 * body * tokens / (3 * second * 0.4))
    seconds = times(job, rates=timing.Rates(RATES.scoring, 0.4, 0.5, 2.0, "x", True, served=0.2)).phases
    assert seconds["teacher"] == pytest.approx(2 * times(job).phases["teacher"])
    seconds["generate"] += seconds["environment"]
    run = calibration.Measured(seconds, job, WORK, CATALOGUE.get("p4de"), "x")
    found = calibration.calibrate(run, otherwise=RATES)
    assert found.served == pytest.approx(0.2)
    assert found.scoring["teacher"] == RATES.scoring["teacher"], "the trainer has scored nothing"


@pytest.mark.parametrize(
    ("trains", "nodes", "replicas", "tp", "machines"),
    [
        (8, 1, 0, 1, 1), (8, 1, 1, 1, 2), (4, 1, 4, 1, 1), (4, 1, 2, 2, 1), (4, 1, 1, 8, 2), (4, 1, 5, 1, 2),
        (16, 2, 8, 1, 3), (16, 2, 9, 1, 4), (8, 2, 2, 4, 2), (12, 2, 2, 2, 2), (12, 2, 1, 4, 3), (7, 1, 1, 2, 2),
    ],
)  # fmt: skip
def test_servers_take_free_gpus_first_and_whole_machines_then(trains, nodes, replicas, tp, machines):
    job = plain_job(gpus=trains, nodes=nodes, teacher="server" if replicas else None, servers=replicas, server_tp=tp)
    assert servers.machines(job, CATALOGUE.get("p4d")) == machines


def test_machines_are_counted_in_the_cost_and_said():
    four = ("trainer.n_gpus_per_node=4", "sdar.teacher.server.replicas=4")
    shared, full = recipe_job(SMALL, SERVER, *four), recipe_job(SMALL, SERVER)
    assert judged(shared, "p4de").warnings == judged(shared.with_(servers=0, gpus=8, shards=8), "p4de").warnings
    assert any("1 more p4de.24xlarge is counted, and 7 GPUs stay idle" in w for w in judged(full, "p4de").warnings)
    usd = CATALOGUE.get("p4de").usd("on_demand")
    for job, machines in ((shared, 1), (full, 2)):
        plan = planned(job, "p4de")
        assert plan.machines == machines == plan.as_json()["machines"]
        assert plan.cost.on_demand == pytest.approx(machines * usd * plan.times.hours)
        row = next(row for row in plan.teachers if row.placement == "server")
        assert row.hours == pytest.approx(plan.times.hours) and row.usd == pytest.approx(plan.cost.on_demand)
    sizes = {option.instance.gpus for option in planned(shared, None).options}
    assert sizes == {4, 8}, "where 4 GPUs train and 4 serve, or where the servers have machines of their own"
    assert {option.instance.gpus for option in planned(full, None).options} == {8}


def test_servers_that_cannot_start_are_named_and_what_helps_is_the_configuration_then():
    base = (SMALL, SERVER, LARGE, "trainer.n_gpus_per_node=4", "sdar.teacher.server.gpu_memory_utilization=0.5")
    job, place = recipe_job(*base), CATALOGUE.get("g6.48xlarge")
    assert any("less than one request of 4609 tokens" in p for p in judged(job, "g6.48xlarge").problems)
    offered = {change.overrides: change for change in verdict.changes(job, place, TOKENS)}
    wanted = ("sdar.teacher.server.gpu_memory_utilization=0.85",)
    assert offered[wanted].job == recipe_job(*base, *wanted)
    wanted = ("sdar.teacher.server.tensor_parallel_size=2",)
    assert offered[wanted].job == recipe_job(*base, *wanted)
    over = judged(job.with_(server_share=1.0), "p4d")
    assert any(text.startswith("a teacher server is 2.9 GiB over") for text in over.problems)
    wide = judged(job.with_(server_tp=16), "p4d")
    assert any("asks for 16 GPUs of one machine, p4d.24xlarge has 8" in text for text in wide.problems)


@settings(max_examples=40)
@given(JOBS, st.integers(1, 6), st.sampled_from([1, 2, 4]))
def test_more_server_gpus_are_never_slower(job, replicas, tp):
    job = job.with_(teacher="server", servers=replicas, server_tp=tp)
    base = times(job)
    for more in (job.with_(servers=replicas + 1), job.with_(server_tp=2 * tp)):
        assert times(more).step < base.step
        assert servers.machines(more, CATALOGUE.get("p4d")) >= servers.machines(job, CATALOGUE.get("p4d"))
    one, other = (memory.estimate(j, 80 * GIB).phases["server"] for j in (job, job.with_(server_tp=2 * tp)))
    assert other["teacher"] == one["teacher"] / 2 and other["KV cache"] >= one.get("KV cache", 0)


def test_the_examples_in_the_documentation_are_what_the_planner_says():
    text = " ".join((RECIPE.parents[2] / "docs" / "planner.md").read_text().split())

    def published(job):
        work = workload.assumed(job)
        rates, place = calibration.published_rates(job, work, CATALOGUE), CATALOGUE.get("p4de")
        found = memory.estimate(job, place.gpu_bytes)
        return found, timing.estimate(job, work, place, rates, host.estimate(job, work.tokens(job)))

    found, spent = published(recipe_job(SERVER, "trainer.n_gpus_per_node=4"))
    server = found.phases["server"]
    parts = [f"{server[part] / GIB:.1f} {name}" for part, name in
             (("teacher", "weights"), ("KV cache", "cache"), ("logits", "logits"))]  # fmt: skip
    assert f"{found.total('server') / GIB:.1f} GiB of 80 on the server ({', '.join(parts)})" in text
    assert f"{spent.phases['teacher']:.0f} s a step to score" in text
    found, spent = published(recipe_job("algorithm.adv_estimator=gae"))
    waits = sum(size for part, size in found.phases["rollout"].items() if part.startswith("critic")) / GIB
    assert (
        f"{found.peak / GIB:.1f} GiB at its fullest (while episodes are played: the critic's {waits:.1f} wait)" in text
    )
    assert found.peak_phase == "rollout"
    more = spent.step / published(recipe_job())[1].step - 1
    assert f"{100 * more:.0f} % more time a step than without it" in text


def test_the_table_says_whose_memory_it_is():
    from sdar_verl.plan.table import _short, memory_table

    lines = memory_table(planned(recipe_job(SMALL, *AS_REFERENCE), "p4de")).splitlines()
    assert any(line.split()[:3] == ["teacher,", "as", "reference"] and "host" in line for line in lines)
    lines = memory_table(planned(recipe_job(SMALL, SERVER, LARGE), "p4de")).splitlines()
    reference = next(line.split() for line in lines if line.split()[:1] == ["reference"])
    assert lines[0].split()[-1] == "server" and reference[-1] == "·" and reference[1:-1] == ["host"] * 4
    assert _short("critic.fsdp.offload_policy=true") == "critic.offload_policy=true"
    assert _short("sdar.teacher.server.tensor_parallel_size=2") == "server.tensor_parallel_size=2"
    assert _short("a.b.ppo_max_token_len_per_gpu=8192") == "ppo_max_token_len_per_gpu=8192"
