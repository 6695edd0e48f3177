"""A real run that is hurt, stopped and resumed: it goes on where it can, ends where it cannot, and leaves nothing."""

from __future__ import annotations

import re
import signal

import pytest

from sdar_verl.evaluation.jsonl import read_records
from sdar_verl.evaluation.records import EpisodeRecord

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LONG = {
    "env.alfworld.max_steps": 6,
    "env.pool.workers": 2,
    "env.pool.envs_per_worker": 4,
    "trainer.total_training_steps": 1000,
    "trainer.save_freq": 1,
    "trainer.test_freq": -1,
    "trainer.val_before_train": "false",
}


def test_kills_and_signals_one_after_the_other(train):
    """One run folder, started four times, because a start takes longer than everything else.

    Guards: the loss of an environment worker costs its episodes only; the loss of an agent-loop worker ends the run
    with an error instead of waiting for ever; `kill -9`, Ctrl-C and SIGTERM leave nothing; every start goes on from
    the last complete checkpoint, with no line lost or doubled.
    """
    run = train("run", LONG)
    run.until(run.steps, "first step")
    _kill_environment_workers(run)
    _kill_agent_worker(run)
    before = _check_records(run)

    run = train("run", LONG, phases=True)
    run.until(lambda: run.steps() and run.steps()[-1] > before[-1], "step after the resume")
    assert run.note_ports()
    begun = len(run.phases())
    run.until(lambda: "begin save_checkpoint" in run.phases()[begun:], "checkpoint being saved", pause=0.01)
    run.signal(signal.SIGKILL)
    run.process.wait()
    run.wait_gone(120)
    assert any(line.startswith("temp") for line in run.left()), "nothing was left to clean: this test could not fail"
    before = _check_records(run, since=before)

    after = train("run", LONG, temp=run.temp)
    after.shared_memory |= run.shared_memory  # what the killed run left counts as well
    after.until(lambda: after.steps() and after.steps()[-1] > before[-1], "step after the kill")
    assert len(list(run.temp.iterdir())) == 1, "the next start removes what the killed driver could not"
    after.note_ports()
    after.signal(signal.SIGINT)
    assert after.wait(60) == 130, after.tail()
    assert after.left() == []
    before = _check_records(after, since=before)

    last = train("run", LONG)
    last.until(lambda: last.named("ray::"), "Ray workers")
    last.signal(signal.SIGTERM)  # in the middle of the start
    assert last.wait(60) == 130, last.tail()
    assert last.left() == []
    assert last.steps() == before


def _kill_environment_workers(run):
    """Until one is hit in the middle of an episode; the run replaces it and goes on."""

    def failed():
        path = run.run_dir / "episodes" / "train.jsonl"
        return [episode for episode in read_records(path, EpisodeRecord) if episode.failed]

    for _ in range(20):
        seen = run.steps()[-1]
        run.named("sdar_envs.pool_worker")[0].kill()
        run.until(lambda seen=seen: failed() or run.steps()[-1] >= seen + 2, "failed episode or two more steps")
        if failed():
            break
    lost = failed()
    assert lost and not any(episode.won for episode in lost)
    assert all("crashed" in episode.failed for episode in lost)
    seen = run.steps()[-1]
    run.until(lambda: run.steps()[-1] >= seen + 2, "two steps after the loss")

    def replaced():  # starting another takes longer than a step
        data = run.lines("metrics.jsonl")[-1]["data"]
        return data["env_pool/restarts"] >= 1 and data["env_pool/workers"] == 2

    run.until(replaced, "another worker in the place of the one that was killed")
    data = run.lines("metrics.jsonl")[-1]["data"]
    assert data["env_pool/failures"] == len(failed())
    counted = {line["step"]: line["data"] for line in run.lines("metrics.jsonl")}
    for step in {episode.step for episode in failed()}:
        data, gone = counted[step], sum(episode.step == step for episode in failed())
        assert data["episode/count"] == 8 - gone and data["episode/failed_share"] == gone / 8


def _kill_agent_worker(run):
    run.note_ports()
    (worker,) = run.named("ray::SdarAgentLoopWorker")
    worker.kill()
    assert run.wait(90) not in (0, 130), run.tail()
    assert re.search("ActorDiedError|ActorUnavailableError", run.log.read_text()), run.tail()
    assert run.left() == []


def _check_records(run, since=()):
    """Every step once and in order, with its eight episodes; returns the steps."""
    steps = run.whole_steps(episodes=8)
    kept = list(since[:-1])  # the last one may have had no checkpoint yet
    assert steps[: len(kept)] == kept
    return steps
