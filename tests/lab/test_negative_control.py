"""Negative control on the shipped model: a teacher with wrong skills agrees less with what was sampled.

The gap shows it. The share of open gates hardly does (docs/methods/sdar.md has the numbers), because most tokens of an
answer are the same either way.
"""

from __future__ import annotations

import pytest
import torch

from sdar_verl.core import DistillationConfig
from sdar_verl.core.gap import as_tokens
from sdar_verl.core.gates import GATES
from sdar_verl.lab import WEIGHTS
from sdar_verl.lab import envs as labs
from sdar_verl.lab.evaluate import load_policy
from sdar_verl.lab.play import play
from sdar_verl.lab.prompts import CONDITIONS, SkillShelf, messages
from sdar_verl.skills import open_store
from sdar_verl.teacher.context import TeacherPromptBuilder

pytestmark = pytest.mark.slow
GAMES, LAB = 24, labs.get("alfworld")
CONFIG = LAB.config


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """The shipped model, and every turn that it played without skills: task, conversation, sampled ids."""
    policy = load_policy(WEIGHTS)
    prompt_format = LAB.make_format(CONFIG)
    builder = TeacherPromptBuilder(policy.tokenizer, "system", CONFIG.max_positions, overflow="raise")
    turns = []

    def choose(running):
        said = [(task, messages(prompt_format, view)) for task, view in running]
        answers = policy.answer([builder.build(talk, []).ids for _, talk in said])
        turns.extend((*pair, ids) for pair, ids in zip(said, answers, strict=True))
        return [policy.tokenizer.decode(ids, skip_special_tokens=True) for ids in answers]

    (world,) = LAB.worlds(tmp_path_factory.mktemp("games"), "valid_unseen", GAMES, 3, LAB.play.knobs)
    envs = [LAB.make_env(CONFIG, world, 8) for _ in range(GAMES)]
    play(world.tasks, envs, prompt_format, choose)
    for env in envs:
        env.close()
    return policy, builder, turns


@torch.inference_mode()
def log_probs(policy, prompts, answers):
    """Of each answer's tokens under its prompt, padded with zeros; and which are tokens."""
    rows = [torch.tensor(prompt + answer) for prompt, answer in zip(prompts, answers, strict=True)]
    longest = max(map(len, answers))
    values, mask = torch.zeros(len(rows), longest), torch.zeros(len(rows), longest, dtype=torch.int64)
    for start in range(0, len(rows), 16):
        part = torch.nn.utils.rnn.pad_sequence(rows[start : start + 16], batch_first=True)
        found = (policy.model(part).logits[:, :-1] / policy.temperature).log_softmax(-1)
        for number in range(start, min(start + 16, len(rows))):
            first, ids = len(prompts[number]) - 1, torch.tensor(answers[number])
            values[number, : len(ids)] = found[number - start, first + torch.arange(len(ids)), ids]
            mask[number, : len(ids)] = 1
    return values, mask


@pytest.fixture(scope="module")
def gates(sampled):
    """Gate and gap at every sampled token of the teacher under each condition."""
    policy, builder, turns = sampled
    shelf, answers = SkillShelf(open_store(CONFIG.skills), "alfworld"), [ids for _, _, ids in turns]
    config = DistillationConfig()
    student, mask = log_probs(policy, [builder.build(talk, []).ids for _, talk, _ in turns], answers)
    found = {}
    for condition in CONDITIONS:
        prompts = [builder.build(talk, shelf.skills(condition, task)).ids for task, talk, _ in turns]
        tokens = as_tokens(student, log_probs(policy, prompts, answers)[0], mask)
        found[condition] = (GATES.get("gap")(tokens, config)[tokens.mask], tokens.gap[tokens.mask])
    return found


def test_wrong_skills_lower_the_gap_and_open_no_more_gates(gates):
    active = {condition: float((gate > 0.5).float().mean()) for condition, (gate, _) in gates.items()}
    gap = {condition: float(values.mean()) for condition, (_, values) in gates.items()}
    assert gap["wrong"] < gap["right"] - 0.005, gap
    assert active["wrong"] < active["right"] + 0.01, active


def test_without_skills_every_gate_stands_half_open(gates):
    gate, gap = gates["none"]
    assert gap.abs().max() < 1e-5 and torch.allclose(gate, torch.full_like(gate, 0.5), atol=1e-4)
