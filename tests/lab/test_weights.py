"""The shipped model is the one that the shipped configuration describes, and it plays as its card says."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sdar_verl.lab import WEIGHTS, envs
from sdar_verl.lab.evaluate import evaluate, load_policy
from sdar_verl.lab.fit import repeat
from sdar_verl.lab.model import ROLLOUT_HEAD_SIZES
from sdar_verl.lab.record import config_of, fingerprint, read_record, weights_hash

RECORD = read_record(WEIGHTS)
CONFIG = envs.get("alfworld").config


def test_weights_are_those_of_the_shipped_configuration():
    assert config_of(RECORD) == CONFIG
    assert RECORD["fingerprint"] == fingerprint(CONFIG)
    assert RECORD["weights_sha256"] == weights_hash(WEIGHTS)


def test_card_speaks_of_these_weights():
    card = (WEIGHTS / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert RECORD["weights_sha256"] in card and RECORD["fingerprint"] in card


def test_model_and_tokenizer_load_and_fit_together():
    model, tokenizer = AutoModelForCausalLM.from_pretrained(WEIGHTS), AutoTokenizer.from_pretrained(WEIGHTS)
    config = model.config
    assert type(model).__name__ == "Qwen2ForCausalLM" and model.dtype == torch.float32
    assert config.vocab_size == len(tokenizer) == RECORD["vocabulary"]
    assert 500_000 <= sum(p.numel() for p in model.parameters()) <= 5_000_000
    assert config.hidden_size // config.num_attention_heads in ROLLOUT_HEAD_SIZES
    assert config.eos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 8_000_000


def test_scores_beside_the_weights_are_of_the_promised_size():
    scores = json.loads((WEIGHTS / "scores.json").read_text(encoding="utf-8"))
    rates = {name: score["rate"] for name, score in scores.items()}
    assert all(rate["n"] >= 200 for rate in rates.values())
    assert rates["right"]["rate"] >= 0.7 and 0.2 <= rates["none"]["rate"] <= 0.5
    assert rates["wrong"]["low"] <= rates["none"]["rate"]


@pytest.mark.slow
def test_the_command_makes_this_model():
    """The whole fit takes half an hour; its first steps fix everything that the rest depends on."""
    recorded, repeated = repeat(WEIGHTS, say=lambda line: None)
    assert repeated == pytest.approx(recorded, rel=2e-3)


@pytest.mark.slow
def test_the_right_skill_helps_and_a_wrong_one_does_not():
    torch.set_num_threads(1)
    policy = load_policy(WEIGHTS, seed=11)
    scores = evaluate(policy, CONFIG, games=60, seed=12, say=lambda line: None)
    assert scores["right"].rate.low > scores["none"].rate.rate
    assert scores["wrong"].rate.low <= scores["none"].rate.rate
    assert all(score.valid > 0.95 for score in scores.values())
