"""A real run whose machine goes away, and that goes on in an empty folder from S3 alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sdar_verl.evaluation.jsonl import read_records
from sdar_verl.evaluation.records import EpisodeRecord
from sdar_verl.storage.remote import RemoteCheckpoints

sys.path.insert(0, str(Path(__file__).parents[1] / "spot"))
from fake_imds import ACTION, INTERRUPTION, FakeImds  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LIKELIEST = {  # the likeliest token always: equal weights play equal episodes, whatever the seeds of a start
    "actor_rollout_ref.rollout.top_k": 1,
    "actor_rollout_ref.actor.optim.lr": 1e-3,
    "env.alfworld.max_steps": 6,
    "trainer.val_before_train": "false",
    "trainer.test_freq": -1,
    "trainer.save_freq": -1,
    "data.seed": 3,
    "actor_rollout_ref.actor.kl_loss_coef": 0.0,
    "sdar.teacher.placement": "ref",  # of weights of its own, which must come back as well
    "sdar.teacher.update_rate": 0.5,
}
SAME = ("actor/entropy", "actor/grad_norm", "sdar/gap_mean", "sdar/gate_mean", "episode/turns", "episode/success_rate")


@pytest.fixture
def imds(monkeypatch):
    service = FakeImds()
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url)
    yield service
    service.close()


def test_an_interruption_and_the_numbers_of_a_run_without_it(train, place, imds):
    """First machine: a notice, and the running step is abandoned. Second: from S3 to the end.

    Guards the exit code, that the second machine starts empty and has the run's whole past, that nothing is left over,
    and that tasks and numbers, the gap to a moving average among them, are those of a run that was never interrupted.
    """
    cloud = {**LIKELIEST, "sdar.checkpoints.s3": f"'{place}'"}
    first = train("first", {**cloud, "sdar.spot.imds": "true", "sdar.spot.poll_seconds": 0.2,
                            "sdar.spot.on_notice": "abandon", "trainer.total_training_steps": 1000})  # fmt: skip
    first.until(lambda: len(first.steps()) >= 2, "two steps")
    imds.answers[ACTION] = INTERRUPTION
    assert first.wait(300) == 75, first.tail()
    assert first.left() == []
    kept = first.steps()[-1]
    assert f"goes on from the checkpoint of step {kept}" in first.log.read_text(), first.tail()
    assert [entry.step for entry in RemoteCheckpoints(place).entries()] == [kept]

    second = train("second", {**cloud, "trainer.total_training_steps": kept + 2})
    assert second.wait() == 0, second.tail()
    assert second.left() == [] and second.steps() == list(range(1, kept + 3))
    assert second.lines("metrics.jsonl")[:kept] == first.lines("metrics.jsonl")
    assert json.loads((second.run_dir / "run.json").read_text())["start"] == 2

    plain = train("plain", {**LIKELIEST, "trainer.total_training_steps": kept + 2})
    assert plain.wait() == 0, plain.tail()
    assert _tasks(second) == _tasks(plain)
    for one, other in zip(second.lines("metrics.jsonl"), plain.lines("metrics.jsonl"), strict=True):
        for name in SAME:
            assert one["data"][name] == pytest.approx(other["data"][name], rel=1e-2, abs=1e-4), (one["step"], name)
    entropies = [line["data"]["actor/entropy"] for line in plain.lines("metrics.jsonl")]
    assert max(entropies) - min(entropies) > 0.01, "the weights hardly change: this test could not fail"


def _tasks(run):
    """The tasks of each step, as often as they were played."""
    played = list(read_records(run.run_dir / "episodes" / "train.jsonl", EpisodeRecord))
    return {step: sorted(e.task_id for e in played if e.step == step) for step in run.steps()}
