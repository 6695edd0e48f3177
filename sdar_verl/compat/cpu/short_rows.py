"""Rows of agents on a CPU: rows of like length together, aligned at their ends, and logits of the responses alone.

verl mixes lengths in a micro-batch, pads rows behind, and forms logits, log-probabilities and entropies at all
positions. Of a row of an agent nearly all is prompt, so without packing (FlashAttention's) most of that is for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.torch_functional import entropy_from_logits

from sdar_verl.compat.select_rows import select_rows

TOKENS = 2048  # of a micro-batch, padding included: larger ones do not stay in a core's cache
_SYNC = {"same_micro_num_in_dp"}  # for one rank it says nothing
_RESPONSES = "response_places"  # in what verl hands from a model's inputs to its outputs: where their tokens are


def log_probs_from_logits(logits: torch.Tensor, labels: torch.Tensor, **_: object) -> torch.Tensor:
    """Log-probabilities (nats) of `labels` ``(T,)`` under `logits` ``(T, V)``, for verl's function of this name."""
    return -torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def parts_by_length(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Row numbers in parts of at most `tokens` tokens each with padding, or of one row; every row once.

    Args:
        lengths: of each row, in tokens.
        tokens: most that a part of several rows may have.
    """
    parts: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not parts or (len(parts[-1]) + 1) * lengths[row] > tokens:
            parts.append([])
        parts[-1].append(row)
    return parts


def micro_batches(stock: Callable[..., Any], data: TensorDict, dp_group: Any = None, **settings: Any) -> Any:
    """For verl's `prepare_micro_batches`: micro-batches of rows of like length, and the row numbers of each.

    `stock` decides where sizes are not verl's to choose, or where ranks must agree on their number.
    """
    ids = data["input_ids"]
    plain = ids.is_nested and ids.lengths() is None
    ranks = 1 if dp_group is None else torch.distributed.get_world_size(dp_group)
    free = tu.get_non_tensor_data(data=data, key="use_dynamic_bsz", default=True)
    grouped = tu.get_non_tensor_data(data=data, key="force_group_size", default=1)
    lengths = ids.offsets().diff().tolist() if plain else []
    limit = tu.get_non_tensor_data(data=data, key="max_token_len_per_gpu", default=0)
    if ranks > 1 or not free or grouped != 1 or not plain or max(lengths) > limit or set(settings) - _SYNC:
        return stock(data=data, dp_group=dp_group, **settings)
    parts = parts_by_length(lengths, min(limit, TOKENS))
    return [select_rows(data, part) for part in parts], parts


class ShortRows:
    """Mixed into verl's FSDP engine of a language model; what needs more than log-probabilities goes verl's own way."""

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        """As verl's, with rows that end together and logits of the columns with responses."""
        inputs, outputs = super().prepare_model_inputs(micro_batch=micro_batch)
        if not self._plain(micro_batch, inputs):
            return inputs, outputs
        offsets = micro_batch["input_ids"].offsets()
        lengths, responses = offsets.diff(), micro_batch["responses"].offsets().diff()
        row = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        column = torch.arange(len(row)) - offsets[1:][row]  # from the end: -1 is a row's last token
        aligned = {}
        for name, values in (
            ("input_ids", micro_batch["input_ids"].values()),
            ("position_ids", micro_batch["position_ids"].values()),
            ("attention_mask", torch.ones_like(row)),
        ):
            empty = torch.zeros_like(inputs[name])
            aligned[name] = empty.index_put((row, column), values.to(empty.dtype))
        # a token's logits stand one place before it
        at = ((column >= -responses[row] - 1) & (column < -1)).nonzero().squeeze(-1)
        kept = {"logits_to_keep": int(responses.max()) + 1}
        return inputs | aligned | kept, outputs | {_RESPONSES: (at, row[at], column[at])}

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, Any]:
        """Log-probabilities (nats), and entropies if asked for, nested as the rows; 0 outside responses."""
        if _RESPONSES not in output_args:
            return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        at, row, column = output_args[_RESPONSES]
        logits = output.logits[row, column]  # from the end, for a model may take no notice of `logits_to_keep`
        if not output_args["temperature_is_one"]:
            logits = logits / output_args["temperature"].clamp(min=1e-8).to(logits.dtype)[row].unsqueeze(-1)
        values = {"log_probs": log_probs_from_logits(logits, output_args["input_ids_rmpad_rolled"][at])}
        if tu.get_non_tensor_data(data=micro_batch, key="calculate_entropy", default=False):
            values["entropy"] = entropy_from_logits(logits)
        ids = micro_batch["input_ids"]
        return {
            name: torch.nested.nested_tensor_from_jagged(
                torch.zeros(len(ids.values()), dtype=value.dtype).index_put((at,), value), ids.offsets()
            )
            for name, value in values.items()
        }

    def _plain(self, micro_batch: TensorDict, inputs: dict[str, Any]) -> bool:
        """Whether rows are texts of one position a token, padded, of which only log-probabilities are wanted."""
        flags = ("use_fused_kernels", "calculate_sum_pi_squared", "distillation_use_topk")
        if any(tu.get_non_tensor_data(data=micro_batch, key=flag, default=False) for flag in flags):
            return False
        packed = tu.get_non_tensor_data(data=micro_batch, key="use_remove_padding", default=True)
        texts = set(inputs) == {"input_ids", "attention_mask", "position_ids"} and inputs["position_ids"].dim() == 2
        return not packed and texts and "responses" in micro_batch and micro_batch["responses"].is_nested
