"""A training engine of verl (the policy's, or a critic's) by what decides its memory and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sdar_verl.plan.models import ModelShape
from sdar_verl.plan.units import PlanError

BYTES = {"fp32": 4, "float32": 4, "float": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2, "half": 2}
STRATEGIES = ("fsdp", "fsdp2")
E = TypeVar("E", bound="Engine")


@dataclass(frozen=True)
class Engine:
    """Numbers of a trained model; lengths and micro-batches in tokens, sizes of types in bytes.

    Attributes:
        gpus, nodes: GPUs in all, and on how many machines.
        shards: GPUs that share one copy of the training state (`fsdp_size`, or all).
        weight_bytes, compute_bytes, reduce_bytes: of the kept weights, the forward pass, the gradients' exchange.
        param_offload, optimizer_offload: verl's own moving to the host between phases.
        cpu_offload: FSDP2's offload policy; training state lives on the host, always.
        reshards: gathered weights are given up after each block; else all of them stay.
        lora_rank, lora_targets: 0 trains all weights.
        update_tokens, score_tokens: most tokens of a micro-batch on one GPU with and without gradient.
        mini_rows: rows of one optimizer step; `epochs`: times that a step's rows are trained on.
        saves: what a checkpoint has (verl's `checkpoint.save_contents`); `saves_adapters_alone`: without the base.
    """

    model: ModelShape
    gpus: int
    nodes: int
    shards: int
    weight_bytes: int
    compute_bytes: int
    reduce_bytes: int
    param_offload: bool
    optimizer_offload: bool
    cpu_offload: bool
    reshards: bool
    checkpointing: bool
    activation_offload: bool
    lora_rank: int
    lora_targets: str | tuple[str, ...]
    update_tokens: int
    score_tokens: int
    mini_rows: int
    epochs: int
    saves: tuple[str, ...]
    saves_adapters_alone: bool

    @property
    def trainable(self) -> int:
        """Parameters that get gradients."""
        return self.model.lora_params(self.lora_rank, self.lora_targets) if self.lora_rank else self.model.params

    @property
    def kept(self) -> int:
        """Parameters that the training engine keeps, adapters included."""
        return self.model.params + (self.trainable if self.lora_rank else 0)

    def with_(self: E, **changes: Any) -> E:
        """A copy with other numbers."""
        return replace(self, **changes)


def engine_values(
    part: Mapping[str, Any], fsdp: Mapping[str, Any], hf: Mapping[str, Any], gpus: int, key: str
) -> dict[str, Any]:
    """Fields of `Engine` that verl keeps under the same names for the policy and for a critic.

    Args:
        part: ``actor_rollout_ref.actor`` or ``critic``.
        fsdp: its FSDP engine's part; `hf`: its model's.
        gpus: that train.
        key: name of `part`, for messages.
    """
    if part["strategy"] not in STRATEGIES:
        raise PlanError(f"{key}.strategy={part['strategy']} is not planned for; known: {', '.join(STRATEGIES)}")
    mixed = fsdp.get("mixed_precision") or {}
    rank = int(hf.get("lora_rank") or (hf.get("lora") or {}).get("rank") or 0)
    if not rank and hf.get("lora_adapter_path"):
        raise PlanError("the rank of lora_adapter_path is in the adapter's own file; give model.lora_rank=<rank> too")
    targets = hf.get("target_modules") or "all-linear"
    return {
        "shards": fsdp["fsdp_size"] if fsdp["fsdp_size"] > 0 else gpus,
        "weight_bytes": bytes_of(fsdp["model_dtype"] or "fp32"),
        "compute_bytes": bytes_of(mixed.get("param_dtype", "bf16")),
        "reduce_bytes": bytes_of(mixed.get("reduce_dtype", "fp32")),
        "param_offload": bool(fsdp["param_offload"]),
        "optimizer_offload": bool(fsdp["optimizer_offload"]),
        "cpu_offload": bool(fsdp["offload_policy"]) and part["strategy"] == "fsdp2",
        "reshards": bool(fsdp["reshard_after_forward"]),
        "checkpointing": bool(hf["enable_gradient_checkpointing"]),
        "activation_offload": bool(hf["enable_activation_offload"]),
        "lora_rank": rank,
        "lora_targets": targets if isinstance(targets, str) else tuple(targets),
        "epochs": part["ppo_epochs"],
        "saves": tuple(part["checkpoint"]["save_contents"]),
        "saves_adapters_alone": bool(rank and part["checkpoint"].get("save_lora_only")),
    }


def bytes_of(name: str) -> int:
    """Bytes of a number of a named type."""
    if name not in BYTES:
        raise PlanError(f"the type {name!r} is unknown; known: {', '.join(BYTES)}")
    return BYTES[name]


def micro_batch(dynamic: bool, tokens: int, rows: int | None, longest: int, key: str) -> int:
    """Most tokens of a micro-batch on one GPU: by tokens (never less than one row), or rows of the longest kind."""
    if dynamic:
        return max(tokens, longest)
    if not rows:
        raise PlanError(f"without use_dynamic_bsz=true {key} must say how many rows a micro-batch has")
    return rows * longest
