"""The tokenizer is read back unchanged by the loader that every other part uses."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from sdar_verl.lab.tokenizer import TAGS, train_tokenizer

TEXTS = [
    "You are in the middle of a room. Looking quickly around you, you see a cabinet 1, and a fridge 12.",
    "Admissible actions:\n'go to cabinet 1'\n'take apple 2 from fridge 12'\n'move apple 2 to cabinet 1'",
] * 3
CHAT = [{"role": "system", "content": "heat: go to microwave."}, {"role": "user", "content": TEXTS[1]}]


@pytest.fixture(scope="module")
def trained():
    return train_tokenizer(TEXTS, 330)


@pytest.fixture(scope="module")
def loaded(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    trained.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}))
    return AutoTokenizer.from_pretrained(folder)


def test_same_vocabulary_without_holes(trained, loaded):
    assert loaded.get_vocab() == trained.get_vocab()
    assert sorted(loaded.get_vocab().values()) == list(range(len(loaded)))


@given(text=st.text(max_size=80) | st.text("abegortu 0123456789'\n.,:<>/", max_size=80))
def test_same_ids_and_lossless(trained, loaded, text):
    assert trained(text).input_ids == loaded(text).input_ids
    normal = loaded.backend_tokenizer.normalizer.normalize_str(text)
    assert loaded.decode(loaded(text).input_ids) == normal


def test_words_of_the_training_texts_are_single_tokens(loaded):
    assert [loaded.decode([i]) for i in loaded(" cabinet 1").input_ids] == [" cabinet", " ", "1"]


def test_roles_end_and_padding(loaded):
    assert (loaded.eos_token, loaded.pad_token, loaded.bos_token) == ("<|im_end|>", "<|endoftext|>", None)
    assert len(loaded("<|im_end|>").input_ids) == 1


def test_tags_are_single_tokens_that_survive_decoding(loaded):
    answer = "<think>so</think><action>go to cabinet 1</action>"
    ids = loaded(answer).input_ids
    assert all(loaded.convert_tokens_to_ids(tag) in ids for tag in TAGS)
    assert loaded.decode([*ids, loaded.eos_token_id], skip_special_tokens=True) == answer


def test_chat_template_writes_the_given_messages_and_no_others(loaded):
    text = loaded.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False)
    assert text == (
        "<|im_start|>system\nheat: go to microwave.<|im_end|>\n"
        f"<|im_start|>user\n{TEXTS[1]}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert "system" not in loaded.apply_chat_template(CHAT[1:], tokenize=False)


def test_same_texts_give_the_same_tokenizer(trained):
    again = train_tokenizer(iter(TEXTS), 330)
    assert again.backend_tokenizer.to_str() == trained.backend_tokenizer.to_str()


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(ValueError, match="set it above 263"):
        train_tokenizer(TEXTS, 200)
