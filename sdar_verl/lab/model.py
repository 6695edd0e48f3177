"""A Qwen2 language model small enough to learn and to play on one CPU core."""

from __future__ import annotations

import torch
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

ROLLOUT_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # what the CPU rollout engine can attend with


def build_model(
    tokenizer: PreTrainedTokenizerBase,
    *,
    hidden: int,
    layers: int,
    heads: int,
    kv_heads: int,
    ffn: int,
    max_positions: int,
    seed: int,
) -> Qwen2ForCausalLM:
    """A fresh float32 `Qwen2ForCausalLM` with tied embeddings and exactly ``len(tokenizer)`` output tokens.

    Args:
        tokenizer: sets the vocabulary size and the end and padding tokens.
        hidden: width of the residual stream; a multiple of `heads`.
        layers, heads, kv_heads: depth, query heads, key/value heads.
        ffn: inner width of the feed-forward blocks.
        max_positions: longest sequence (prompt and answer) in tokens.
        seed: seed of the initial weights; the global random state is left as it was.

    Raises:
        ValueError: the head size is one that the CPU rollout engine has no kernel for.
    """
    if hidden % heads or hidden // heads not in ROLLOUT_HEAD_SIZES:
        raise ValueError(f"hidden / heads is {hidden} / {heads}; it must be one of {ROLLOUT_HEAD_SIZES}")
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=ffn,
        max_position_embeddings=max_positions,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        use_cache=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config).float()
