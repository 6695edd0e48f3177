"""A real run that loses its power in every phase of a step, and goes on each time.

Eleven starts are too long for every change (about half an hour on two cores), so this one is run by hand:
``POWER_LOSS=all bash scripts/test.sh tests/e2e/test_power_loss.py``, or with the names of some phases. What it found
stands in docs/checkpoints.md; `test_faults.py` kills a run while it saves, in every test run.
"""

from __future__ import annotations

import os
import random
import time

import pytest

from sdar_verl.storage.remote import RemoteCheckpoints

PHASES = {  # a line of the timers, and how long the phase lasts here at most, in seconds
    "begin gen": 3.0,
    "begin old_log_prob": 0.3,
    "begin adv": 0.1,
    "begin teacher": 0.3,
    "begin update_actor": 0.5,
    "begin save_checkpoint": 0.5,
    "end save_checkpoint": 0.5,  # on its way to S3
    "begin update_weights": 0.5,
    "begin testing": 2.0,
    "": 60.0,  # any time in the start
}
ASKED = os.environ.get("POWER_LOSS", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not ASKED, reason="by hand, with POWER_LOSS=all or 'begin gen,end save_checkpoint'"),
]

RUN = {
    "env.alfworld.max_steps": 3,
    "env.pool.workers": 1,
    "trainer.save_freq": 1,
    "trainer.test_freq": 1,
    "trainer.val_before_train": "false",
    "sdar.checkpoints.keep": 2,
}


def test_power_is_lost_in_every_phase_of_a_step(train, place, capsys):
    """Each second start is on a new machine, which has nothing but S3.

    Guards: whatever lies in S3 with a manifest is whole; a start never goes on from an older step than the newest of
    S3; its past is the same line by line; no step and no episode is there twice or missing.
    """
    chance = random.Random(7)
    phases = chance.sample(list(PHASES), len(PHASES)) if ASKED == "all" else ASKED.split(",")
    remote, cloud = RemoteCheckpoints(place), {**RUN, "sdar.checkpoints.s3": f"'{place}'"}
    past: list[dict] = []
    for number, phase in enumerate(phases):
        machine = f"machine{(number + 1) // 2}"
        newest = _sound_steps(remote)[-1:]
        run = train(machine, {**cloud, "trainer.total_training_steps": 1000}, phases=True)
        if phase:
            reached = len(past) + 2
            run.until(lambda run=run, reached=reached: len(run.steps()) >= reached, "two steps")
            _check(run, past[: newest[0] if newest else 0])
            begun = len(run.phases())
            run.until(lambda run=run, begun=begun, phase=phase: phase in run.phases()[begun:], phase, pause=0.01)
        time.sleep(chance.uniform(0, PHASES[phase]))
        at = next((line for line in reversed(run.phases()) if line), "start")
        for process in run.look():
            process.kill()
        run.wait_gone(60)
        run.destroy()
        lost = run.lines("metrics.jsonl")
        past = lost or past
        with capsys.disabled():
            print(f"\n{machine}: killed after '{phase}', in '{at}', {len(lost)} steps recorded, "
                  f"in S3 {_sound_steps(remote)}", flush=True)  # fmt: skip
    newest = _sound_steps(remote)[-1]
    last = train("last machine", {**cloud, "trainer.total_training_steps": newest + 1})
    assert last.wait() == 0, last.tail()
    assert last.left() == []
    _check(last, past[:newest])
    assert _sound_steps(remote)[-1] == newest + 1


def _sound_steps(remote):
    """Steps of the checkpoints in S3, oldest first, each compared with its hashes."""
    entries = remote.entries()
    for entry in entries:
        manifest = remote.read(entry)
        assert remote.missing(entry.name, manifest) == [] and remote.differing(entry.name, manifest) == []
    return [entry.step for entry in entries]


def _check(run, past):
    lines = run.lines("metrics.jsonl")
    steps = run.whole_steps(episodes=8)
    assert steps == list(range(1, len(steps) + 1))
    assert lines[: len(past)] == past, "its past is another one"
