"""A small real tokenizer with Qwen2's chat markup, under several chat templates."""

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sdar_verl.skills import open_store

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

# Turns as Qwen writes them; without a system message "default" writes one of its own, "plain" writes none.
TURNS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{% endif %}"
)
DEFAULT_SYSTEM = "You are a tiny tester."
TEMPLATES = {
    "plain": TURNS,
    "default": "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n"
    + DEFAULT_SYSTEM
    + "<|im_end|>\\n' }}{% endif %}"
    + TURNS,
    "no_system": "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role here') }}{% endif %}"
    + TURNS,
    "drops_system": "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}" + TURNS,
    "dated": "{% set own = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}"
    "{{ '<|im_start|>system\\nToday.\\n' + own + '<|im_end|>\\n' }}"
    "{% for m in messages if m['role'] != 'system' %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}",
}
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture(scope="session")
def raw_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([skill.text for skill in open_store("alfworld").all()], trainer)
    return tokenizer


@pytest.fixture(scope="session")
def make_tokenizer(raw_tokenizer):
    """``make_tokenizer("plain")``: a tokenizer with that chat template."""

    def make(template: str) -> PreTrainedTokenizerFast:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(raw_tokenizer.to_str()),
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
            extra_special_tokens=["<|im_start|>"],
        )
        tokenizer.add_tokens(["<think>", "</think>"])
        tokenizer.chat_template = TEMPLATES[template]
        return tokenizer

    return make


@pytest.fixture(scope="session")
def plain(make_tokenizer):
    return make_tokenizer("plain")


@pytest.fixture(scope="session")
def with_default(make_tokenizer):
    return make_tokenizer("default")
