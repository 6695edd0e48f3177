"""Another model as teacher: refused unless it scores the very same token ids."""

import json
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from sdar_verl.core import DistillationConfig
from sdar_verl.errors import ConfigError
from sdar_verl.lab.model import build_model
from sdar_verl.lab.tokenizer import train_tokenizer
from sdar_verl.teacher_model import check_teacher_model, tokenizer_difference

TEXTS = ["You see a drawer 1, a desk 1. Your task is to: put a mug in drawer."] * 30


class Sized:
    def __init__(self, tokenizer, vocabulary):
        self.eos_token_id, self.pad_token_id, self.vocabulary = (
            tokenizer.eos_token_id, tokenizer.pad_token_id, vocabulary,
        )  # fmt: skip

    def __len__(self):
        return self.vocabulary


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 400)


@pytest.fixture(scope="module")
def models(tmp_path_factory, tokenizer):
    root = tmp_path_factory.mktemp("models")
    other = train_tokenizer(["Completely other words, of other lengths."] * 30, 330)
    for name, own, vocabulary in (
        ("student", tokenizer, len(tokenizer)),
        ("padded", tokenizer, len(tokenizer) + 64),
        ("cut", tokenizer, len(tokenizer) - 1),
        ("other", other, len(other)),
    ):
        sized = Sized(own, vocabulary)
        build_model(sized, hidden=64, layers=1, heads=2, kv_heads=1, ffn=32, max_positions=64, seed=0).save_pretrained(
            root / name
        )
        own.save_pretrained(root / name)
    return root


def check(models, tokenizer, name, **term):
    plain = {"actor_rollout_ref": {"model": {"path": str(models / "student"), "trust_remote_code": False}}}
    settings = SimpleNamespace(
        teacher=SimpleNamespace(model_path=str(models / name)), distillation=DistillationConfig(gate="none", **term)
    )
    check_teacher_model(plain, settings, tokenizer)


@pytest.mark.parametrize("name", ["student", "padded"])
def test_a_model_of_the_same_tokenizer_may_score_tokens(models, tokenizer, name):
    check(models, tokenizer, name)


@pytest.mark.parametrize(
    ("name", "term", "says"),
    [
        ("other", {}, "has another tokenizer than the student: token '.*' has id .* here and .* there"),
        ("cut", {}, "has a vocabulary of .*, fewer than the .* of its tokenizer"),
        ("padded", {"divergence": "full"}, "compares them entry by entry; choose divergence=sampled_token or k3"),
        ("nowhere", {}, "nowhere' cannot be loaded"),
    ],
)
def test_what_cannot_score_is_refused(models, tokenizer, name, term, says):
    with pytest.raises(ConfigError, match=says):
        check(models, tokenizer, name, **term)


def changed(tokenizer, tmp_path, change):
    """A copy of `tokenizer` whose file `change` has altered."""
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return AutoTokenizer.from_pretrained(tmp_path)


def test_equal_vocabularies_that_cut_texts_differently(tokenizer, tmp_path):
    assert tokenizer_difference(tokenizer, tokenizer) == ""
    other = changed(tokenizer, tmp_path, lambda content: content["model"]["merges"].clear())
    assert "is cut differently" in tokenizer_difference(tokenizer, other)


def test_another_end_of_turn(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    other = AutoTokenizer.from_pretrained(tmp_path)
    other.eos_token = other.convert_ids_to_tokens(5)
    assert "end and padding tokens are" in tokenizer_difference(tokenizer, other)
