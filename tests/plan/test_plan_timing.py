"""The phase model: the published run comes out of it again, and so does a run that was made up with known rates."""

import json
from dataclasses import replace

import pytest
from plan_jobs import RECIPE, plain_job, recipe_job

from sdar_verl.plan import calibration, host, memory, models, timing, workload
from sdar_verl.plan.catalogue import load_catalogue
from sdar_verl.plan.compose import compose
from sdar_verl.plan.units import GIB, PlanError, shipped

CATALOGUE = load_catalogue()


def times(job, work, instance="p4de", rates=None):
    rates = rates or calibration.published_rates(job, work, CATALOGUE)
    return timing.estimate(job, work, CATALOGUE.get(instance), rates, host.estimate(job, work.tokens(job)))


def published():
    """The reference run as a job with its own workload."""
    data = shipped("reference_run")
    job = recipe_job("actor_rollout_ref.model.path=Qwen/Qwen2.5-3B-Instruct", "trainer.n_gpus_per_node=4")
    work = workload.assumed(job, turns=50)
    return data, job, replace(work, turns=data["tokens"] / 128 / 600, skills=0.45 * 600)


def test_the_published_run_is_reproduced():
    data, job, work = published()
    found = times(job, work)
    for phase, seconds in data["seconds"].items():
        if phase != "other":
            total = found.phases[phase] + (found.phases["environment"] if phase == "generate" else 0)
            assert total == pytest.approx(seconds, rel=0.01), phase
    # its teacher read 1.45 times as much as the student, says the time of its scores
    assert found.phases["teacher"] == pytest.approx(data["teacher_seconds_not_used"], rel=0.02)
    assert found.step == pytest.approx(1816, rel=0.01)
    assert found.steps * found.step / 3600 == pytest.approx(75.7, rel=0.01)


def test_an_update_with_recomputation_is_four_forwards():
    job = plain_job()
    assert timing.update_flops(job, 1e6) == 4 * timing.forward_flops(job, 1e6)
    assert timing.update_flops(job.with_(checkpointing=False), 1e6) == 3 * timing.forward_flops(job, 1e6)
    assert timing.update_flops(job.with_(lora_rank=8), 1e6) == 3 * timing.forward_flops(job, 1e6)
    tied = plain_job("Qwen/Qwen2.5-3B-Instruct")
    assert timing.forward_flops(tied, 10) == 20 * tied.model.params
    assert timing.forward_flops(job, 10) == 20 * (job.model.params - job.model.embedding), "a lookup is no arithmetic"


def test_more_gpus_and_fewer_tokens_take_less_time():
    job = recipe_job()
    work = workload.assumed(job)
    rates = calibration.published_rates(job, work, CATALOGUE)
    base = times(job, work, rates=rates).step
    assert times(job.with_(gpus=16, shards=16, nodes=2), work, rates=rates).step < base
    assert times(job, replace(work, turns=10), rates=rates).step < base
    assert times(job.with_(teacher=None), work, rates=rates).step < base
    assert times(job.with_(cpu_offload=True), work, rates=rates).step > base
    assert times(job.with_(optimizer_offload=True), work, rates=rates).step > base
    assert times(job, work, "p5", rates).step < base
    whole, sampled = (times(job.with_(distribution=d), work, rates=rates).phases["update"] for d in (True, False))
    assert whole > sampled, "the teacher reads its rows once more"


def test_the_teacher_reads_the_skills_too():
    job = recipe_job()
    work = workload.assumed(job)
    found = times(job, work).phases
    assert found["teacher"] / found["old"] == pytest.approx((600 + work.skills) / 600)
    assert 500 < work.skills < 1500
    assert workload.assumed(recipe_job("sdar.skills.retriever=none")).skills == 0
    assert workload.assumed(recipe_job("sdar.skills.retriever=full")).skills > 2 * work.skills


def test_rows_of_whole_episodes_read_the_prompt_once():
    job = recipe_job()
    work = workload.assumed(job)
    whole = job.with_(rows="trajectory", response=8192)
    assert work.rows(whole) == 128
    assert work.tokens(whole) == 128 * (work.prompt + work.turns * (work.answer + work.feedback)) < work.tokens(job)


def test_means_stay_within_the_runs_limits():
    job = recipe_job("env.alfworld.max_steps=10", "data.max_response_length=64", "data.max_prompt_length=100")
    work = workload.assumed(job)
    assert (work.turns, work.answer, work.prompt) == (10, 64, 100)


def test_an_unknown_environment_asks_for_numbers():
    job = plain_job(env="maze")
    with pytest.raises(PlanError, match="--turns N, --prompt N"):
        workload.assumed(job, answer=10)
    assert workload.assumed(job, turns=3, prompt=50, answer=10).tokens(job) == 128 * 3 * 60
    with pytest.raises(PlanError, match="above 0"):
        workload.assumed(job, turns=3, prompt=50, answer=-1)


# --- a finished run ---------------------------------------------------------------------------------------------------

RATES = timing.Rates({"old": 0.3, "ref": 0.35, "values": 0.3, "teacher": 0.25}, update=0.4, generate=0.5, other=2.0,
                     source="made up", measured=True)  # fmt: skip
EPISODES = {"turns": 21.0, "prompt": 350.0, "answer": 120.0, "skills": 700.0}


@pytest.fixture(scope="module")
def config():
    return compose(RECIPE, [])


@pytest.fixture
def run(tmp_path, config):
    """A run folder with the metrics that `RATES` and `EPISODES` give on p4de, after a slow first step."""
    job = recipe_job()
    work = workload.override(workload.assumed(job), job, EPISODES)
    phases = times(job, work, rates=RATES).phases
    timers = {phase: timer for timer, phase in calibration.TIMERS.items()}
    seconds = {f"timing_s/{timers[name]}": value for name, value in phases.items() if name in timers}
    seconds["timing_s/gen"] += phases["environment"]
    seconds["timing_s/step"] = sum(phases.values())
    metrics = seconds | {
        "episode/turns": work.turns, "prompt_length/mean": work.prompt, "response_length/mean": work.answer,
        "sdar/teacher_prompt_tokens/mean": work.prompt + work.skills,
    }  # fmt: skip
    slow = {name: 5 * value if name.startswith("timing_s/") else value for name, value in metrics.items()}
    lines = [json.dumps({"step": i, "data": slow if i == 1 else metrics}) for i in range(1, 5)]
    folder = tmp_path / "finished"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "manifest.json").write_text(json.dumps({"config": config}))
    return folder


def adopted(run, job, **more):
    work = workload.assumed(job)
    rates = calibration.published_rates(job, work, CATALOGUE)
    given = {"instance": CATALOGUE.get("p4de"), "model_config": None} | more
    return calibration.from_run(run, job, work, rates, **given)[:2]


def test_a_finished_run_gives_its_rates_and_its_episodes(run):
    work, rates = adopted(run, recipe_job())
    assert rates.scoring == pytest.approx(RATES.scoring, rel=1e-3)
    assert (rates.update, rates.generate, rates.other) == pytest.approx((0.4, 0.5, 2.0), rel=1e-3)
    assert rates.measured and "finished on p4de.24xlarge" in rates.source
    assert {name: getattr(work, name) for name in EPISODES} == pytest.approx(EPISODES)


def test_its_memory_is_held_against_the_arithmetic(run):
    job = recipe_job()
    lines, used = (run / "metrics.jsonl").read_text(), '"actor/perf/max_memory_allocated_gb": 33.3'
    (run / "metrics.jsonl").write_text(lines.replace('"episode/turns"', f'{used}, "episode/turns"'))
    work = workload.assumed(job)
    rates, place = calibration.published_rates(job, work, CATALOGUE), CATALOGUE.get("p4de")
    *_, remarks = calibration.from_run(run, job, work, rates, instance=place, model_config=None)
    parts = memory.estimate(job, place.gpu_bytes).phases["update"]
    assert "at most 33.3 GiB" in remarks[0]
    assert f"says {(sum(parts.values()) - parts['reserve']) / GIB:.1f}" in remarks[0]


def test_its_rates_foretell_another_model_on_another_instance(run):
    job = recipe_job("actor_rollout_ref.model.path=Qwen/Qwen3-8B")
    work, rates = adopted(run, recipe_job())
    found, wanted = (times(job, work, "p5", r) for r in (rates, RATES))
    assert found.step == pytest.approx(wanted.step, rel=1e-3)


def test_another_vocabulary_lends_only_the_turns(run):
    job = recipe_job("actor_rollout_ref.model.path=meta-llama/Llama-3.1-8B-Instruct")
    work, _ = adopted(run, job)
    assert work.turns == 21 and work.prompt == workload.assumed(job).prompt and "another vocabulary" in work.source


def test_a_run_on_a_cpu_lends_its_episodes_alone(run, config):
    changed = json.loads(json.dumps(config))
    changed["trainer"]["device"] = "cpu"
    (run / "manifest.json").write_text(json.dumps({"config": changed}))
    work, rates = adopted(run, recipe_job(), instance=None)
    assert work.turns == 21 and not rates.measured and "CPU" in rates.source


def test_what_a_run_lacks_is_said(run):
    maze = plain_job(env="maze")
    with pytest.raises(PlanError, match="--calibrate-instance"):
        adopted(run, recipe_job(), instance=None)
    with pytest.raises(PlanError, match="it played alfworld, the plan is for maze"):
        calibration.adopt(workload.assumed(recipe_job()), workload.assumed(recipe_job()), maze, recipe_job())
    lines = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(lines.replace("timing_s/update_actor", "timing_s/nothing"))
    with pytest.raises(PlanError, match="no seconds for update"):
        adopted(run, recipe_job())
    (run / "metrics.jsonl").write_text(lines.replace("episode/turns", "episode/nothing"))
    with pytest.raises(PlanError, match="logged no turns"):
        adopted(run, recipe_job())
    (run / "manifest.json").unlink()
    with pytest.raises(PlanError, match="no manifest.json"):
        adopted(run, recipe_job())


def test_a_teacher_that_was_not_timed_takes_the_rate_of_the_student(run):
    data, job, work = published()
    rates = calibration.published_rates(job, work, CATALOGUE)
    assert rates.scoring["teacher"] == rates.scoring["old"] and not rates.measured
    assert models.load(data["model"]).params == job.model.params
