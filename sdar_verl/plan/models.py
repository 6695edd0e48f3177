"""A language model's sizes from its Hugging Face ``config.json`` alone: parameters, KV cache, LoRA, live tensors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sdar_verl.plan.units import PlanError, shipped

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
# family: (bias of q, k, v; None asks the config's attention_bias, which o_proj then has too), (norm of q and k heads)
_FAMILIES: dict[str, tuple[bool | None, bool]] = {
    "qwen2": (True, False),
    "qwen2_moe": (True, False),
    "qwen3": (None, True),
    "qwen3_moe": (None, True),
    "llama": (None, False),
    "mistral": (False, False),
    "mixtral": (False, False),
}


_ADAPTED_EXPERTS = ("qwen3_moe", "mixtral")  # where PEFT 0.21 finds the experts behind all-linear


@dataclass(frozen=True)
class ModelShape:
    """Attributes (numbers, not bytes):
    name: what the user called it.
    layers, hidden, vocab, heads, kv_heads, head_dim: as in the config.
    tied: whether input and output embedding are one matrix.
    params: all parameters.
    active: parameters that one token passes (all of them without experts), embeddings included.
    largest_block: parameters of the largest transformer block.
    live_ffn: width of the feed-forward part that one token passes.
    linears: for each kind of linear layer, how many there are with which inputs and outputs.
    experts: number of experts a layer; 0 for a dense model.
    max_positions: the longest context.
    """

    name: str
    layers: int
    hidden: int
    vocab: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    params: int
    active: int
    largest_block: int
    live_ffn: int
    linears: tuple[tuple[str, int, int, int], ...]
    experts: int
    max_positions: int

    @property
    def embedding(self) -> int:
        """Parameters of one embedding matrix."""
        return self.vocab * self.hidden

    def kv_bytes_per_token(self, dtype_bytes: int = 2) -> int:
        """Keys and values of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * dtype_bytes

    def with_value_head(self) -> ModelShape:
        """The critic that verl makes of it, a token classifier: one value a token in place of the output embedding."""
        change = self.hidden + 1 - (0 if self.tied else self.embedding)
        return replace(self, params=self.params + change, active=self.active + change, tied=False)

    def lora_params(self, rank: int, targets: str | Iterable[str] = "all-linear") -> int:
        """Trainable parameters of adapters of `rank`: rank × (inputs + outputs) of each adapted layer.

        ``all-linear`` leaves the output embedding out, as PEFT does. The experts of some families are adapted, each of
        them and gate and up at twice the rank: adapters of a model with many experts are large.
        """
        known = {name for name, *_ in self.linears}
        wanted = known if targets == "all-linear" else {targets} if isinstance(targets, str) else set(targets)
        if unknown := sorted(wanted - known):
            raise PlanError(f"no layer {', '.join(unknown)} to adapt in {self.name}; known: {', '.join(sorted(known))}")
        return sum(rank * count * (a + b) for name, count, a, b in self.linears if name in wanted)


def from_config(config: Mapping[str, Any], name: str = "model") -> ModelShape:
    """The sizes that follow from a ``config.json``; raises `PlanError` for a family whose layers are not known here."""
    family = config.get("model_type")
    if family not in _FAMILIES:
        raise PlanError(f"{name}: model_type {family!r} is not known to the planner; known: {', '.join(_FAMILIES)}")
    try:
        return _shape(config, family, name)
    except KeyError as missing:
        raise PlanError(f"{name}: its config.json has no {missing.args[0]!r}; give the model's own file") from None


def _shape(config: Mapping[str, Any], family: str, name: str) -> ModelShape:
    hidden, layers, vocab = (config[key] for key in ("hidden_size", "num_hidden_layers", "vocab_size"))
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or hidden // heads
    qkv_bias, head_norm = _FAMILIES[family]
    out_bias = False
    if qkv_bias is None:
        qkv_bias = out_bias = bool(config.get("attention_bias", False))
    queries, keys = heads * head_dim, kv_heads * head_dim
    attention = hidden * (2 * queries + 2 * keys)
    attention += (queries + 2 * keys) * qkv_bias + hidden * out_bias + 2 * head_dim * head_norm
    bias = bool(config.get("mlp_bias", False)) and family == "llama"
    experts = config.get("num_experts") or config.get("num_local_experts") or 0
    dense = {i for i in range(layers) if not experts or not _is_sparse(config, i)}
    ffn = config["intermediate_size"]
    dense_mlp = 3 * hidden * ffn + (2 * ffn + hidden) * bias
    sparse_mlp = sparse_active = width = shared = 0
    if experts:
        expert_ffn = ffn if family == "mixtral" else config["moe_intermediate_size"]
        chosen = config["num_experts_per_tok"]
        shared = config.get("shared_expert_intermediate_size", 0) if family == "qwen2_moe" else 0
        always = hidden * experts + 3 * hidden * shared + hidden * bool(shared)
        sparse_mlp = always + experts * 3 * hidden * expert_ffn
        sparse_active = always + chosen * 3 * hidden * expert_ffn
        width = chosen * expert_ffn + shared
    sparse_count, tied = layers - len(dense), bool(config.get("tie_word_embeddings", False))
    outer = vocab * hidden * (1 if tied else 2) + hidden
    shell = attention + 2 * hidden
    mlp_linears = [(part, len(dense), ffn) for part in MLP] + [(part, sparse_count, shared) for part in MLP]
    linears = [(ATTENTION[0], layers, hidden, queries), (ATTENTION[1], layers, hidden, keys)]
    linears += [(ATTENTION[2], layers, hidden, keys), (ATTENTION[3], layers, queries, hidden)]
    linears += [(part, count, hidden, size) for part, count, size in mlp_linears if count and size]
    if shared:
        linears.append(("shared_expert_gate", sparse_count, hidden, 1))
    if family in _ADAPTED_EXPERTS:  # of fused experts, gate and up are adapted together, at twice the rank
        every = experts * sparse_count
        linears.append(("gate", sparse_count, hidden, experts))
        linears += [("experts", 2 * every, hidden, 2 * expert_ffn), ("experts", every, expert_ffn, hidden)]
    return ModelShape(
        name=name,
        layers=layers,
        hidden=hidden,
        vocab=vocab,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        tied=tied,
        params=outer + layers * shell + len(dense) * dense_mlp + sparse_count * sparse_mlp,
        active=outer + layers * shell + len(dense) * dense_mlp + sparse_count * sparse_active,
        largest_block=shell + max(dense_mlp if dense else 0, sparse_mlp),
        live_ffn=max(ffn if dense else 0, width),
        linears=tuple(linears),
        experts=experts,
        max_positions=config.get("max_position_embeddings", 32768),
    )


def _is_sparse(config: Mapping[str, Any], layer: int) -> bool:
    """Whether a layer of a model with experts has them; transformers' rule for Qwen, every layer for Mixtral."""
    return (
        layer not in (config.get("mlp_only_layers") or []) and (layer + 1) % config.get("decoder_sparse_step", 1) == 0
    )


def known_models() -> dict[str, dict[str, Any]]:
    """The shipped facts: model name to its ``config`` fields."""
    return shipped("models")["models"]


def load(path: str | Path, config_file: str | Path | None = None, flag: str = "--model-config") -> ModelShape:
    """A model by name or folder, offline.

    Args:
        path: ``actor_rollout_ref.model.path``: a folder with a ``config.json``, that file, or a known model's name.
        config_file: a ``config.json`` (or its folder) that is used instead; `flag`: what gives it, for messages.

    Raises:
        PlanError: nothing is known about the model; the message lists the shipped ones.
    """
    source = Path(config_file if config_file is not None else path).expanduser()
    file = source / "config.json" if source.is_dir() else source
    if file.is_file():
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise PlanError(f"{file} is no JSON: {error}") from error
        if not isinstance(content, dict):
            raise PlanError(f"{file} is no JSON object")
        return from_config(content, str(path) if config_file is not None else source.name)
    if config_file is not None:
        raise PlanError(f"there is no {file}; {flag} takes a config.json or its folder")
    known = known_models()
    if str(path) in known:
        return from_config(known[str(path)], str(path))
    raise PlanError(
        f"nothing is known about the model {str(path)!r}: give its config.json with {flag} FILE. Shipped are "
        f"the sizes of {', '.join(known)}"
    )
