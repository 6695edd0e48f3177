"""A small byte-level BPE tokenizer that every Qwen2 loader reads back exactly.

A model folder with ``model_type: qwen2`` makes `AutoTokenizer` build a `Qwen2Tokenizer`, which sets its own
pre-tokenizer whatever the saved file says. So the merges are learned behind that very pre-tokenizer: what is trained
here is what a rollout engine, a trainer and a report load later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, Qwen2Tokenizer

from sdar_verl.lab.prompts import TAGS

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int, tags: Sequence[str] = TAGS) -> PreTrainedTokenizerBase:
    """Learn byte-level BPE merges from `texts` and dress the result as a chat tokenizer.

    The result has at most `vocab_size` tokens (fewer where the texts hold fewer pairs to merge): 256 bytes, the
    merges, then chat markup and answer tags. Padding is ``<|endoftext|>``, the end of a turn is ``<|im_end|>``. The
    chat template adds no system message of its own. The same texts always give the same tokenizer.

    Args:
        texts: plain texts without chat markup.
        vocab_size: the largest number of tokens, markup included.
        tags: answer tags; whole tokens, kept when special tokens are skipped.

    Raises:
        ValueError: `vocab_size` leaves no room for merges.
    """
    markup = (PAD, START, END, *tags)
    if vocab_size <= 256 + len(markup):
        raise ValueError(f"vocab_size is {vocab_size}; set it above {256 + len(markup)} (bytes and markup)")
    stock = Qwen2Tokenizer().backend_tokenizer
    learner = Tokenizer(models.BPE())
    learner.normalizer, learner.pre_tokenizer = stock.normalizer, stock.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(markup), initial_alphabet=alphabet, min_frequency=2, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(pair) for pair in learned["merges"]],
        unk_token=None,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
    )
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in tags])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
