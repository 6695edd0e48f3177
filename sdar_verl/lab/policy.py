"""Batched sampling from a small model in plain PyTorch, for fitting checks and evaluation without a rollout engine."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase


class Policy:
    """A model with its tokenizer, sampled in batches.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer; answers end at ``tokenizer.eos_token_id``.
        max_tokens: longest answer in tokens, the end token included.
        temperature: 0 takes the most likely token; otherwise logits are divided by it.
        seed: seed of the sampling.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_tokens: int,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        if temperature < 0:
            raise ValueError(f"temperature is {temperature}; set it to 0 (greedy) or above")
        self.model, self.tokenizer = model.eval(), tokenizer
        self.max_tokens, self.temperature = max_tokens, temperature
        self._dice = torch.Generator().manual_seed(seed)

    @torch.inference_mode()
    def answer(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """One sampled answer for each of the `prompts` (token ids); the end token is included where it was drawn."""
        end, pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        width = max(map(len, prompts))
        ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts])  # (B, T), padded on the left
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache()
        answers: list[list[int]] = [[] for _ in prompts]
        running = torch.ones(len(prompts), dtype=torch.bool)
        for _ in range(self.max_tokens):
            hidden = self.model.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            ).last_hidden_state
            token = self._draw(self.model.lm_head(hidden[:, -1]))
            for row in running.nonzero().flatten().tolist():
                answers[row].append(int(token[row]))
            running &= token != end
            if not running.any():
                break
            ids = token[:, None]
            mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=-1)
            positions = positions[:, -1:] + 1
        return answers

    def _draw(self, logits: torch.Tensor) -> torch.Tensor:
        """Token ids `(B,)` drawn from `logits` `(B, V)`."""
        if self.temperature == 0:
            return logits.argmax(-1)
        chances = torch.softmax(logits.float() / self.temperature, dim=-1)
        return torch.multinomial(chances, 1, generator=self._dice).squeeze(-1)
