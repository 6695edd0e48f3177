"""Parts of a method that cannot work together, refused with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdar_verl.core.advantages import ADVANTAGES
from sdar_verl.core.divergences import DIVERGENCES

if TYPE_CHECKING:
    from sdar_verl.core.config import DistillationConfig

_BLIND = ("none", "entropy")  # gates that do not read the gap


def check_combination(config: DistillationConfig) -> None:
    """Raises `ValueError` that says what to set if parts of `config` contradict each other or have no effect."""
    if not config.rl and config.coef == 0:
        raise ValueError("rl=false and coef=0 leave nothing to learn from; raise coef (lambda) or set rl=true")
    if config.place == "loss" and not config.rl and config.gate in _BLIND and config.divergence == "sampled_token":
        raise ValueError(
            f"rl=false with gate={config.gate} and divergence=sampled_token leaves a gradient in which the teacher "
            "does not occur: the student would imitate itself; choose a gate that reads the gap, another divergence, "
            "or place=advantage with advantage=reverse_kl"
        )
    if config.gate == "none" and config.gate_baseline != "none":
        raise ValueError(
            f"gate=none with gate_baseline={config.gate_baseline} gives every token the same constant, and "
            "gate_baseline=mean gives 0; choose a gate or gate_baseline=none"
        )
    if "distribution" not in DIVERGENCES.needs(config.divergence) and config.alpha != 1:
        raise ValueError(
            f"divergence={config.divergence} sees the sampled token alone, which can only estimate a reverse KL "
            f"(alpha=1); alpha={config.alpha} needs the teacher's distribution: set divergence=topk or full"
        )
    if config.divergence_clip is not None and config.divergence == "sampled_token":
        raise ValueError(
            "divergence_clip would cut the sampled-token term's gradient off where the teacher agrees "
            "most; choose another divergence or divergence_clip=null"
        )
    if config.divergence != "sampled_token" and config.gate_baseline != "none":
        raise ValueError(
            f"gate_baseline={config.gate_baseline} is a control variate of the sampled-token term alone: the "
            f"gradient of {config.divergence} vanishes with the gap by itself; set gate_baseline=none"
        )
    if config.divergence_clip is not None and config.importance_ratio == "attached":
        raise ValueError(
            "divergence_clip with importance_ratio=attached would push away the very tokens that it clips; set "
            "divergence_clip=null or importance_ratio=detached"
        )
    defaults = type(config)
    if config.divergence != "topk" and any(
        getattr(config, name) != getattr(defaults, name) for name in ("topk", "topk_support", "topk_tail")
    ):
        raise ValueError(
            f"topk, topk_support and topk_tail have no effect with divergence={config.divergence}; set divergence=topk"
        )
    if config.importance_ratio == "attached" and config.divergence != "k3":
        raise ValueError(
            f"importance_ratio=attached with divergence={config.divergence} would push the student away from the "
            "teacher, because the term's value then is minus a reverse KL; set importance_ratio=detached, or "
            "divergence=k3"
        )
    if config.ratio_clip is not None and config.importance_ratio == "none":
        raise ValueError("ratio_clip clips the importance ratio; set importance_ratio=detached or attached")
    _check_place(config)


def _check_place(config: DistillationConfig) -> None:
    if config.place == "loss":
        if config.advantage is not None:
            raise ValueError(f"advantage={config.advantage} has no effect with place=loss; set place=advantage")
        return
    if config.advantage is None:
        raise ValueError(f"place=advantage needs advantage, one of {', '.join(ADVANTAGES.names())}")
    ADVANTAGES.get(config.advantage)
    parts = {
        "gate": (config.gate, "none"),
        "divergence": (config.divergence, "sampled_token"),
        "importance_ratio": (config.importance_ratio, "none"),
    }
    idle = [f"{name}={value} (set {plain})" for name, (value, plain) in parts.items() if value != plain]
    if idle:
        raise ValueError(f"with place=advantage the RL loss weighs the tokens; no effect: {', '.join(idle)}")
    if config.advantage == "evidence" and not config.rl:
        raise ValueError("advantage=evidence scales the reward's advantage, which rl=false takes out; set rl=true")
    if config.advantage == "evidence" and config.coef > 1:
        raise ValueError(f"advantage=evidence mixes with coef (lambda) as a share in [0, 1], got {config.coef!r}")
