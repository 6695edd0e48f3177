"""RLOO on rows of turns, against its definition: an episode is one sample, however many turns it has."""

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from verl import DataProto
from verl.trainer.ppo.v1 import trainer_base

from sdar_verl.compat.outcome_advantages import BY_EPISODE, BY_GROUP, by_episode

KEYS = ["a_0_0", "a_0_1", "a_0_2", "a_1_0", "a_2_0", "a_2_1", "b_0_0", "b_1_0", "b_1_1"]
REWARD = {"a_0": 10.0, "a_1": -0.1, "a_2": 3.0, "b_0": 1.0, "b_1": 4.0}


def batch(order):
    keys = [KEYS[i] for i in order]
    mask = torch.ones(len(keys), 3)
    mask[0, 2] = 0
    scores = torch.zeros_like(mask)
    scores[:, 0] = torch.tensor([REWARD[key.rpartition("_")[0]] for key in keys])
    data = DataProto(
        batch=TensorDict({"response_mask": mask, "token_level_rewards": scores}, batch_size=len(keys)),
        non_tensor_batch={"uid": np.array([key.split("_")[0] for key in keys], dtype=object)},
    )
    return keys, data


@pytest.mark.parametrize("estimator", BY_EPISODE)
@pytest.mark.parametrize("order", [range(9), [8, 0, 5, 2, 4, 7, 1, 3, 6]], ids=["in order", "shuffled"])
def test_every_turn_gets_its_episodes_advantage(estimator, order):
    keys, data = batch(order)
    mask = data.batch["response_mask"].clone()
    with by_episode():
        data = trainer_base.compute_advantage_for_multi_trajectories(
            data, batch_keys=keys, adv_estimator=estimator, norm_adv_by_std_in_grpo=True, config={}
        )
    for row, key in enumerate(keys):
        session = key.rpartition("_")[0]
        group = [reward for name, reward in REWARD.items() if name[0] == session[0]]
        others = [reward for name, reward in REWARD.items() if name[0] == session[0] and name != session]
        expected = REWARD[session] - np.mean(others)
        if estimator == "grpo_vectorized":
            expected = (REWARD[session] - np.mean(group)) / (np.std(group, ddof=1) + 1e-6)
        found = data.batch["advantages"][row]
        np.testing.assert_allclose(found, expected * mask[row], rtol=1e-5)


def test_other_estimators_are_verls():
    stock = trainer_base.compute_advantage_for_multi_trajectories
    keys, data = batch(range(9))
    _, same = batch(range(9))
    with by_episode():
        assert trainer_base.compute_advantage_for_multi_trajectories is not stock
        found = trainer_base.compute_advantage_for_multi_trajectories(
            data, batch_keys=keys, adv_estimator="grpo", config={}
        )
    assert trainer_base.compute_advantage_for_multi_trajectories is stock
    expected = stock(same, batch_keys=keys, adv_estimator="grpo", config={})
    assert torch.equal(found.batch["advantages"], expected.batch["advantages"])


@pytest.mark.parametrize("estimator", BY_GROUP)
def test_an_episode_whose_siblings_were_lost_teaches_nothing(estimator):
    """verl would take its reward for its advantage, several times what any advantage of a whole group is."""
    _, data = batch(range(9))
    keys = [key.replace("b_0", "c_0") for key in KEYS]  # b has one episode left, c one too
    data.non_tensor_batch["uid"] = np.array([key.split("_")[0] for key in keys], dtype=object)
    with by_episode():
        found = trainer_base.compute_advantage_for_multi_trajectories(
            data, batch_keys=keys, adv_estimator=estimator, num_repeat=3, config={}
        )
    there = found.batch["advantages"].abs().sum(-1) > 0
    assert there.tolist() == [key[0] == "a" for key in keys]
