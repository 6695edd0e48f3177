"""The trainer's side of `ucb`: counting, checkpoints, and a resumed run that chooses as an uninterrupted one."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from sdar_verl.skill_learning import SkillLearning
from sdar_verl.skills import MemoryStore, Skill, SkillError, SkillQuery, retrievers
from sdar_verl.skills.retrievers import RetrieverOptions
from sdar_verl.skills.statistics import SkillStatistics, Tally

STORE = MemoryStore([Skill(f"s{n}", f"text {n}", "toy", f"type{n}", 1, "test") for n in range(4)])


def learning(run_dir, score="won"):
    return SkillLearning(run_dir, SimpleNamespace(ucb=SimpleNamespace(c=1.0, score=score)))


def end(retrieved, won=False, reward=0.0, task_type="type0"):
    return {"task_type": task_type, "retrieved": retrieved, "won": won, "reward": reward}


def train(run_dir, first, last, checkpoint_every=3):
    """Steps `first` to `last` of a run whose episodes depend on step and skill alone; returns what was shown."""
    keeper, shown = learning(run_dir), []
    folder = run_dir / "checkpoints" / f"global_step_{first - 1}"
    keeper.start(first - 1, folder if first > 1 else None)
    for step in range(first, last + 1):
        ends = []
        for episode in range(6):
            task_type = f"type{episode % 2}"
            worker = retrievers.make("ucb", STORE, options=RetrieverOptions(run_dir, 1.0))  # a process of its own
            (chosen,) = worker.retrieve(SkillQuery("toy", task_type, f"t/{episode}", step=step))
            shown.append((step, task_type, chosen.id))
            won = random.Random(f"{step} {episode} {chosen.id}").random() < 0.5
            ends.append(end([chosen.id], won=won, task_type=task_type))
        random.Random(step).shuffle(ends)
        keeper.count(step, ends)
        if step % checkpoint_every == 0:
            keeper.save(run_dir / "checkpoints" / f"global_step_{step}")
    return shown


def test_a_resumed_run_chooses_as_an_uninterrupted_one(tmp_path):
    whole = train(tmp_path / "whole", 1, 12)
    train(tmp_path / "cut", 1, 8)  # killed after step 8; its last checkpoint is of step 6
    again = train(tmp_path / "cut", 7, 12)
    assert again == [one for one in whole if one[0] >= 7]
    assert SkillStatistics.load(tmp_path / "cut") == SkillStatistics.load(tmp_path / "whole")


def test_won_or_reward_counts(tmp_path):
    ends = [end(["s0"], won=True, reward=9.5), end(["s0", "s1"], reward=-0.25)]
    for score, total in (("won", 1.0), ("reward", 9.25)):
        keeper = learning(tmp_path, score)
        keeper.start(0, None)
        assert keeper.count(1, ends) == {"skills/episodes_counted": 2, "skills/retrieved": 2}
        assert SkillStatistics.load(tmp_path).tally("type0", "s0") == Tally(2, total)


def test_a_fresh_start_forgets_an_earlier_run(tmp_path):
    keeper = learning(tmp_path)
    keeper.start(0, None)
    keeper.count(1, [end(["s0"])])
    learning(tmp_path).start(0, tmp_path / "checkpoints" / "global_step_0")
    assert SkillStatistics.load(tmp_path) == SkillStatistics()


def test_a_checkpoint_without_its_statistics_is_refused(tmp_path):
    keeper = learning(tmp_path)
    with pytest.raises(SkillError, match="cannot go on with sdar.skills.retriever=ucb; was it begun with another"):
        keeper.start(3, tmp_path / "global_step_3")
    SkillStatistics(step=2).save(tmp_path / "global_step_3")
    with pytest.raises(SkillError, match="is of step 2, not of step 3"):
        keeper.start(3, tmp_path / "global_step_3")
