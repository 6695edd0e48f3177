"""The gradients' benchmark: what it forms is what the theory speaks of, and a small run of it."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from sdar_verl.agent.rows import Row

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gradients.py"
WORDS, TEMPERATURE = 40, 0.8


@pytest.fixture(scope="module")
def gradients():
    sys.path.insert(0, str(SCRIPT.parent))  # its own helper modules
    spec = importlib.util.spec_from_file_location("gradients", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gradients"] = module  # its dataclass looks there for its annotations
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(SCRIPT.parent))
    del sys.modules["gradients"]


def model(scale):
    """A random model; the larger `scale`, the more its tokens differ in probability."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=WORDS, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    made = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() == 2:
                weight.mul_(scale)
    return made


def rows(count, answers=None):
    chance = torch.Generator().manual_seed(1)

    def ids(length):
        return torch.randint(0, WORDS, (length,), generator=chance).tolist()

    made = []
    for number in range(count):
        response = ids(3) if answers is None else answers[number]
        prompt = ids(4 + number % 3)
        made.append((Row(prompt, response, [1] * len(response), None, teacher_prompt_ids=ids(6) + prompt), 1.0))
    return made


def test_logits_are_those_before_each_response_token(gradients):
    made, network = rows(3), model(5)
    packed = gradients.pack(made)
    found = gradients.log_probs(network, packed.teacher, TEMPERATURE)
    expected = []
    for row, _ in made:
        ids = torch.tensor([row.teacher_prompt_ids + row.response_ids])
        logits = network(ids).logits[0, len(row.teacher_prompt_ids) - 1 : -1] / TEMPERATURE
        expected.append(logits.log_softmax(-1))
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-5, rtol=0)
    assert packed.tokens.tolist() == [token for row, _ in made for token in row.response_ids]


def test_small_gaps_follow_the_theory_and_large_ones_are_tempered(gradients):
    small, large = (gradients.measure(model(s), [gradients.pack(rows(24))], TEMPERATURE, 5.0, 0.01) for s in (1, 10))
    assert small["gap_abs"] < 0.05 < 0.5 < large["gap_abs"]
    assert small["cosine"] > 0.999 and small["ratio"] == pytest.approx(1.0, abs=0.02)
    assert large["cosine"] < 0.95 and large["ratio"] < 0.5


def test_sampled_gradients_have_the_exact_one_as_their_mean(gradients):
    """One token a row, all words as often as the student samples them: then the sampled gradient is the exact one."""
    network = model(3)
    prompt = list(range(5))
    with torch.no_grad():
        shares = (network(torch.tensor([prompt])).logits[0, -1] / TEMPERATURE).softmax(-1)
    counts = (shares * 1000).round().int().tolist()
    made = [
        (Row(prompt, [word], [1], None, teacher_prompt_ids=[7, 9, 11, *prompt]), 0.0)
        for word, count in enumerate(counts)
        for _ in range(count)
    ]
    two = [gradients.pack(made), gradients.pack(made)]
    found = gradients.measure(network, two, TEMPERATURE, 5.0, 0.01)
    assert found["term_to_grpo"] is None, "no advantage, no gradient to compare with"
    batch = two[0]
    student, teacher = (gradients.log_probs(network, part, TEMPERATURE) for part in (batch.student, batch.teacher))
    every = (teacher - student).detach()
    weights = list(network.parameters())
    exact = torch.autograd.grad(
        (student.detach().exp() * torch.sigmoid(5.0 * every) * student).sum(-1).mean(), weights, retain_graph=True
    )
    chosen = batch.tokens[:, None]
    gate = torch.sigmoid(5.0 * every.gather(-1, chosen)) - 0.5
    sampled = torch.autograd.grad((gate * student.gather(-1, chosen)).mean(), weights)
    for one, other in zip(exact, sampled, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=0.05)


@pytest.mark.slow
def test_the_shipped_model(tmp_path):
    command = [sys.executable, str(SCRIPT), "start", "--rows", "24"]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "out.json"), "--plot", str(tmp_path / "out.png")],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "out.json").read_text())["start"]
    assert found["tokens"] >= 24 and 0 < found["gap_abs"] < 5 and 0 < found["gate_mean"] < 1
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    bad = subprocess.run([*command[:2], "nothing=/nowhere"], capture_output=True, text=True, timeout=120)
    assert bad.returncode == 2 and "name a set of weights" in bad.stderr
